"""Compares texts: duplicates, labels that disagree, and texts that two parts of a file share."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from cloister.data.check.findings import FileFinding
from cloister.data.check.near import Fingerprints, copies, shared
from cloister.data.values import shown
from cloister.errors import UsageError

# Parts of a file that are compared with each other.
MOST_PARTS = 20


class Compared:
    """Keeps what is needed to compare texts: fingerprints, label numbers and parts.

    Args:
        near: Whether to look for near duplicates too.
    """

    def __init__(self, *, near: bool) -> None:
        self._near = near
        self._prints = Fingerprints(near=near)
        self._parts: list[str] = []
        self._part_of = array("B")
        self._label_numbers: dict[str, int] = {}
        self._label_of = array("q")
        self._persons_of: dict[str, set[str]] = {}

    def add(self, text: str, part: str, label: str | None, person: str | None) -> None:
        """Adds one text to the comparison.

        Args:
            text: Not empty.
            part: The part of the data (train, test, …) that it belongs to.
            label: Its label; None: it has none.
            person: The person that it belongs to; None: none is named.

        Raises:
            UsageError: There are more than `MOST_PARTS` parts.
        """
        if part not in self._parts:
            if len(self._parts) == MOST_PARTS:
                raise UsageError(
                    f"--split: more than {MOST_PARTS} parts; name the column that says train or "
                    "test"
                )
            self._parts.append(part)
        number = -1
        if label is not None:
            number = self._label_numbers.setdefault(label, len(self._label_numbers))
        self._prints.add(text)
        self._part_of.append(self._parts.index(part))
        self._label_of.append(number)
        if person is not None:
            self._persons_of.setdefault(part, set()).add(person)

    def report(self) -> tuple[dict[str, Any], list[FileFinding]]:
        """Returns the sections of a report, as JSON values, and the findings."""
        exact, near = self._prints.exact(), self._prints.near()
        labels = np.frombuffer(self._label_of, dtype=np.int64)
        conflicts = int(((labels != labels[exact]) & (labels >= 0)).sum()) if len(exact) else 0
        found = {"exact": copies(exact), "near": copies(near) - copies(exact)}
        messages = {
            "exact": "texts are the same as an earlier one's",
            "near": "texts are nearly the same as an earlier one's (estimated similarity over 0.8)",
        }
        findings = [FileFinding(f"{k}-duplicates", messages[k], n) for k, n in found.items() if n]
        if conflicts:
            message = "texts are the same as an earlier one's and have another label"
            findings.append(FileFinding("label-conflict", message, conflicts))
        sections: dict[str, Any] = {
            "duplicates": {
                **found,
                "near_sought": self._near,
                "same_text_other_label": conflicts,
            }
        }
        if len(self._parts) > 1:
            sections["leakage"] = self._leakage(exact, near, findings)
        return sections, findings

    def _leakage(self, exact: Any, near: Any, findings: list[FileFinding]) -> list[dict[str, Any]]:
        parts = np.frombuffer(self._part_of, dtype=np.uint8)
        leaks = []
        for (one, other, same), (*_, similar) in zip(
            shared(exact, parts, self._parts), shared(near, parts, self._parts), strict=True
        ):
            persons = len(self._persons_of.get(one, set()) & self._persons_of.get(other, set()))
            leaks.append(
                {"of": other, "in": one, "exact": same, "near": similar - same, "persons": persons}
            )
            about = f"of {shown(other)!r} are also in {shown(one)!r}: scores on them are too high"
            counts = {"texts": same, "near texts": similar - same, "persons": persons}
            findings += [
                FileFinding("leakage", f"{what} {about}", count)
                for what, count in counts.items()
                if count
            ]
        return leaks
