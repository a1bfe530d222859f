"""Several calls of one kind to the SuperLink in one request: the executor's, which come per object.

    POST /many/v1/runtime/pull-object: 4 bytes of length, a request, 4 bytes of length, a request, …
    answer: the requests' answers in their order, in the same form; only the first ones where all
    would be large

The request shows version and token once, as each call alone would.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

# What a path begins with.
MANY = "/many"
# Calls of one request: a call takes a few milliseconds of CPU time, and all must end within the
# 30 s of one on a core that many share.
MOST_CALLS = 64
# Bytes of requests or answers after which no further one is added; each part alone may be larger.
LARGE = 4_000_000
_LENGTH = struct.Struct(">I")

Request = TypeVar("Request", bound=Message)


class Parts:
    """The requests of one kind, or their answers, in the place of one protobuf message.

    Args:
        parts: The messages' bytes.
    """

    def __init__(self, parts: Iterable[bytes] = ()) -> None:
        self.parts = list(parts)

    def SerializeToString(self, deterministic: bool = True) -> bytes:  # noqa: N802
        """All parts with their lengths."""
        return b"".join(_LENGTH.pack(len(part)) + part for part in self.parts)

    def ParseFromString(self, content: bytes) -> None:  # noqa: N802
        """Reads the parts.

        Raises:
            DecodeError: The bytes are not whole parts, or too many.
        """
        self.parts, at = [], 0
        while at < len(content):
            start = at + _LENGTH.size
            if start > len(content) or len(self.parts) == MOST_CALLS:
                raise DecodeError("not whole parts, or too many")
            at = start + _LENGTH.unpack(content[start - _LENGTH.size : start])[0]
            if at > len(content):
                raise DecodeError("a part is cut off")
            self.parts.append(content[start:at])


def grouped(requests: Iterable[Request]) -> Iterator[list[Request]]:
    """Cuts requests into groups for one call each, in their order."""
    group: list[Request] = []
    size = 0
    for request in requests:
        length = request.ByteSize()
        if group and (len(group) == MOST_CALLS or size + length > LARGE):
            yield group
            group, size = [], 0
        group.append(request)
        size += length
    if group:
        yield group
