"""The coordinator's public values for an epoch's members, sent with the round's request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Self

from cloister.canonical import canonical
from cloister.errors import AdapterFormatError
from cloister.json_text import read_json
from cloister.names import is_name

# Most bytes of a question: with 1,400 members each gets a box of 28 + 33 · 1,400 bytes from every
# other one (`messages`), as two digits per byte.
MOST_BYTES = 2**27


@dataclass(frozen=True, kw_only=True)
class Query:
    """Public values of a step; those that it does not need are empty.

    Attributes:
        epoch: From 1.
        members: Public key of each member's ledger, by site, hex.
        advertisements: Advertisement of every member, by site, hex: for masking.
        survivors: Sites whose update is in the sum: for signing.
        signatures: Signatures on that set, by site, hex: for revealing.
        boxes: Shares sealed for the addressed site, by their sender, hex: for revealing.
        adapter: SHA-256 of the global adapter that the round started from, hex: for signing and
            revealing.
        evaluates: Whether the sum is of a private evaluation's statistics.
    """

    epoch: int
    members: Mapping[str, str]
    advertisements: Mapping[str, str] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()
    signatures: Mapping[str, str] = field(default_factory=dict)
    boxes: Mapping[str, str] = field(default_factory=dict)
    adapter: str = ""
    evaluates: bool = False

    def to_bytes(self) -> bytes:
        """Encodes the query as canonical JSON; `evaluates` is left out where it is false."""
        values = asdict(self)
        if not self.evaluates:
            del values["evaluates"]
        return canonical(values)

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Decodes a query, and checks it.

        Raises:
            AdapterFormatError: It is not valid JSON, or has other fields than a query.
        """
        try:
            values = read_json(payload, most_bytes=MOST_BYTES)
        except ValueError as error:
            raise AdapterFormatError(
                f"secure aggregation: a question that cannot be read ({error})"
            ) from error
        others = {"epoch", "survivors", "adapter"}
        maps = {f.name for f in fields(cls)} - others - {"evaluates"}
        if (
            not isinstance(values, dict)
            or set(values) - {"evaluates"} != maps | others
            or values.get("evaluates", True) is not True
            or type(values["epoch"]) is not int
            or values["epoch"] < 1
            or not _are_texts([values["adapter"]])
            or not _are_texts(values["survivors"])
            or not all(isinstance(values[name], dict) for name in maps)
            or not all(_are_texts(list(values[name].values())) for name in maps)
            or not all(is_name(site) for name in maps for site in values[name])
            or not all(is_name(site) for site in values["survivors"])
        ):
            raise AdapterFormatError(
                "secure aggregation: the question has unknown, missing or invalid fields"
            )
        return cls(**{**values, "survivors": tuple(values["survivors"])})


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def from_hex(values: Mapping[str, str]) -> dict[str, bytes]:
    """Decodes hex values into bytes, by site.

    Raises:
        AdapterFormatError: A value is not hexadecimal.
    """
    try:
        return {site: bytes.fromhex(text) for site, text in values.items()}
    except ValueError as error:
        raise AdapterFormatError("secure aggregation: a value is not hexadecimal") from error


def to_hex(values: Mapping[str, bytes]) -> dict[str, str]:
    """Encodes bytes as hex, by site, as a query holds them."""
    return {site: value.hex() for site, value in values.items()}
