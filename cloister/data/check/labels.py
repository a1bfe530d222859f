"""Counts labels, and finds ones that may be one label, a typo, or a missing value."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter, defaultdict
from typing import Any

from cloister.data.census import is_missing
from cloister.data.check.findings import FileFinding
from cloister.data.values import shown

# Different labels that are counted; a column with more is not a column of labels.
MOST_LABELS = 10_000
# Labels whose names are compared pairwise; the time grows with the square of their number.
MOST_COMPARED = 300
# Labels listed in the report, the most frequent first.
MOST_LISTED = 200
# Two names are near-equal from this difflib ratio: one letter of ten differs.
NEAR = 0.9
# Shortest name that is compared, in letters: A1 and A2 are different names.
SHORTEST = 5
# Ratio of the most to the least frequent label's records from which a finding is made: training
# then sees few records of the rare label.
IMBALANCED = 10


class Labels:
    """Labels counted, with the first row of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self._missing = FileFinding(
            "no-label",
            "rows have no label, which is a text or an integer; they are left out of training",
        )
        self._more = FileFinding(
            "many-labels", f"labels beyond the first {MOST_LABELS:,}: is this a column of labels?"
        )

    def add(self, label: str | None, row: int) -> None:
        """Counts one row's label; None or blank: the row has none."""
        if label is None or not label.strip():
            self._missing.add(row)
            return
        if label not in self._first:
            if len(self._first) == MOST_LABELS:
                self._more.add(row)
                return
            self._first[label] = row
        self.counts[label] += 1

    def findings(self, *, told_apart: bool = True) -> list[FileFinding]:
        """Returns what looks wrong with the labels.

        Args:
            told_apart: Whether a model learns to tell them apart, so that a single label is a
                mistake. A single type of entity is not.
        """
        found = [f for f in (self._missing, self._more) if f.count]
        found += [*self._variants(), *self._near_names()]
        for label, count in self.counts.items():
            if is_missing(label):
                found.append(self._about("missing-label", label, "looks like a missing value"))
            elif count == 1 and self.counts.total() > len(self.counts):
                found.append(self._about("single-label", label, "occurs once"))
        if told_apart and len(self.counts) == 1:
            found.append(
                FileFinding("one-label", "there is only one label, so nothing can be learnt")
            )
        ordered = [count for _, count in self.counts.most_common()]
        if len(ordered) > 1 and ordered[0] >= IMBALANCED * ordered[-1]:
            message = (
                f"the most frequent label has {ordered[0] / ordered[-1]:.0f} times the records of "
                "the rarest label"
            )
            found.append(FileFinding("imbalance", message))
        return found

    def _about(self, code: str, label: str, why: str) -> FileFinding:
        count = self.counts[label]
        return FileFinding(code, f"the label {shown(label)!r} {why}", count, [self._first[label]])

    def _variants(self) -> list[FileFinding]:
        """Finds labels that differ only by case, width, blanks or hyphens."""
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for label in self.counts:
            groups[_folded(label)].append(label)
        return [
            self._together(names, "differ only by case, width or blanks; write them in one way")
            for names in groups.values()
            if len(names) > 1
        ]

    def _near_names(self) -> list[FileFinding]:
        names = [name for name, _ in self.counts.most_common(MOST_COMPARED)]
        folded = [_folded(name) for name in names]
        found = []
        for i, one in enumerate(folded):
            for j in range(i + 1, len(folded)):
                other = folded[j]
                if one == other or min(len(one), len(other)) < SHORTEST:
                    continue
                matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
                if matcher.real_quick_ratio() >= NEAR and matcher.ratio() >= NEAR:
                    found.append(self._together([names[i], names[j]], "are nearly equal"))
        return found

    def _together(self, names: list[str], why: str) -> FileFinding:
        listed = ", ".join(f"{shown(name)!r} ({self.counts[name]})" for name in names)
        rows = [self._first[name] for name in names]
        return FileFinding(
            "label-variants", f"the labels {listed} {why}", sum(self.counts[n] for n in names), rows
        )

    def to_json(self) -> dict[str, Any]:
        """Returns counts and balance as JSON values."""
        ordered = self.counts.most_common()
        return {
            "distinct": len(ordered),
            "counts": dict(ordered[:MOST_LISTED]),
            "largest_over_smallest": ordered[0][1] / ordered[-1][1] if ordered else None,
        }


def _folded(label: str) -> str:
    plain = unicodedata.normalize("NFKC", label).casefold()
    return "".join(c for c in plain if not c.isspace() and c not in "-_")
