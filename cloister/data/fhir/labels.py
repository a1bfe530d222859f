"""Reads a label from a named element of a resource: `category`, `type.coding.display`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloister.data.fhir.patients import LeftOutError
from cloister.data.fhir.resources import Element, text
from cloister.data.values import Number, Value
from cloister.errors import UsageError

_PATH = re.compile(r"[A-Za-z]\w{0,63}(\.[A-Za-z]\w{0,63}){0,7}")


@dataclass(frozen=True)
class LabelPath:
    """The path to a label in a resource.

    Attributes:
        path: Names of elements with dots between them. If it ends at a CodeableConcept or a
            Coding, the label is the coding's `code`.
        system: The code system of the codings that are used; None: all.
    """

    path: str
    system: str | None = None

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise UsageError(
                f"--label {self.path[:80]!r}: names of elements with dots between them are needed, "
                "such as category or valueCodeableConcept.coding.display"
            )

    @property
    def is_code(self) -> bool:
        """Returns whether the label comes from `code`, with which an observation's text begins."""
        return self.path.partition(".")[0] == "code"

    def label(self, resource: Element) -> str:
        """Returns the only label of a resource.

        Raises:
            LeftOutError: The resource has none, or several different ones.
        """
        found = dict.fromkeys(self._found([resource], self.path.split(".")))
        if not found:
            raise LeftOutError("no-label")
        if len(found) > 1:
            raise LeftOutError("several-labels")
        return next(iter(found))

    def _found(self, values: Sequence[Value], names: list[str]) -> Iterator[str]:
        for name in names:
            values = [
                inner
                for one in self._counted(values)
                if isinstance(one, dict) and (inner := one.get(name)) is not None
            ]
        for value in self._counted(values):
            if isinstance(value, dict):
                codings = value.get("coding", [value])
                yield from self._codes(codings if isinstance(codings, list) else [])
            elif isinstance(value, Number):
                yield value.written
            elif isinstance(value, bool):
                yield "true" if value else "false"
            elif written := text(value).strip():
                yield written

    def _counted(self, values: Sequence[Value]) -> list[Value]:
        """Flattens lists, and drops codings of other systems."""
        opened: list[Value] = []
        for value in values:
            opened += value if isinstance(value, list) else [value]
        return [one for one in opened if not isinstance(one, dict) or self._fits(one)]

    def _codes(self, codings: Sequence[Value]) -> Iterator[str]:
        for coding in codings:
            if not isinstance(coding, dict) or not self._fits(coding):
                continue
            if code := text(coding.get("code")).strip():
                yield code

    def _fits(self, one: Element) -> bool:
        is_coding = isinstance(one.get("code"), str)  # elsewhere `code` is a CodeableConcept
        return self.system is None or not is_coding or one.get("system") == self.system
