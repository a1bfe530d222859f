"""Builds a message from a member's objects, without trusting what they state about themselves.

Flower reads sender and question from the object itself, which a member writes. Here they come from
the SuperLink, which ties a node to its own questions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import Metadata
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

log = logging.getLogger(__name__)


def read_pulled(metadata: Metadata, contents: Mapping[str, bytes]) -> Message:
    """Builds the message in a member's objects.

    Args:
        metadata: The SuperLink's record of sender and question.
        contents: Every object of it, by id.

    Returns:
        A message of this sender to this question, for any objects; without records, so that it does
        not count, if they are not a message or cannot be read.
    """
    own = metadata_from_proto(metadata)
    try:
        found = inflate_object_from_contents(metadata.message_id, dict(contents))
        if not isinstance(found, Message):
            raise TypeError(f"{type(found).__name__} in place of a message")
        if found.has_content():
            if not isinstance(found.content, RecordDict):
                raise TypeError("a message of other content than records")
            return make_message(metadata=own, content=found.content)
        return make_message(metadata=own, error=found.error)
    except Exception:  # an error in one message must not affect the others
        log.warning("node %d sent something that is not a message", own.src_node_id, exc_info=True)
        return make_message(metadata=own, content=RecordDict())


def not_there(metadata: Metadata) -> Message:
    """Flower's error for a message whose objects never came."""
    error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "its objects did not arrive")
    return make_message(metadata=metadata_from_proto(metadata), error=error)
