"""Cleans one row: returns its standard columns, or the rule that leaves it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from cloister.data.cells import whole
from cloister.data.clean.rules import NAMES, RULES, WORD_RULES, cleaned
from cloister.data.config import DataConfig
from cloister.data.detected import COMMAND
from cloister.data.languages import check_languages, language_of
from cloister.data.record_schema import Reading
from cloister.data.records import (
    ONE_LABEL,
    ChatRecord,
    LabelsRecord,
    Message,
    ScoreRecord,
    TokenRecord,
)
from cloister.data.roles import OWN, Roles, written
from cloister.data.unit_column import UNIT
from cloister.data.values import Moment, Number, Real, Row, Value, kind_of, shown
from cloister.errors import DataError, MisfitError, UsageError

# Rules that leave rows out, each with its reason.
DROPS = {
    "unusable": "rows left out that hold no record of this kind",
    "unsettled": "rows left out that the rules still change after several passes",
    "empty": "rows left out whose text is empty",
    "no-label": "rows left out that have no label",
    "no-identifier": "rows left out without a person, site, identifier or part that was asked for",
    "length": "rows left out whose text is shorter or longer than asked for",
    "language": "rows left out whose text is in another language",
}


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """The rules that are applied to a row.

    Attributes:
        skip: Names of rules that are not applied.
        min_chars: Characters of the shortest text that is kept.
        max_chars: Characters of the longest text that is kept; None: any length.
        languages: Codes of the languages that are kept; empty: all.
    """

    skip: tuple[str, ...] = ()
    min_chars: int = 1
    max_chars: int | None = None
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.skip if name not in NAMES]
        if unknown:
            raise UsageError(f"--skip {unknown[0]}: unknown rule; give some of {', '.join(NAMES)}")
        if self.max_chars is not None and self.max_chars < self.min_chars:
            raise UsageError("--max-chars is below --min-chars, which leaves no text; correct one")
        check_languages(self.languages)


@dataclass
class RowCleaner:
    """Cleans rows one by one.

    Attributes:
        roles: The file's columns.
        options: The rules that are applied.
        keep: Further columns that are kept as they are.
    """

    roles: Roles
    options: RowOptions
    keep: Sequence[str] = ()
    # By column of identifiers or labels: the kind of its first value, and that row's number.
    _first: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        skip = self.options.skip
        self._rules = [rule for rule in RULES if rule.name not in skip]
        self._word_rules = [rule for rule in WORD_RULES if rule.name not in skip]
        roles = self.roles
        columns = DataConfig(
            tokens=roles.tokens or "tokens",
            tags=roles.tags or "tags",
            messages=roles.messages or "messages",
            text=roles.text or "text",
            labels=roles.labels,
            label_separator=roles.label_separator,
            score=roles.score,
        )
        self._reading = Reading(roles.kind, columns, persons=False, sites=False, asker=COMMAND)

    def columns(self) -> list[str]:
        """Returns the columns of the output, in order."""
        roles = self.roles
        own = [name for name in OWN[roles.kind] if name != "label"]
        others = [r for r in ("label", "person", "site", "id", "split") if getattr(roles, r)]
        return [*own, *others, UNIT, *self.keep]

    def clean(self, row: Row, where: str, number: int) -> tuple[Row | None, str, set[str]]:
        """Cleans one row, or names the rule that leaves it out.

        Args:
            row: Values by column.
            where: The file and row, for messages.
            number: The row's number.

        Returns:
            The new row, its text for comparison, and the names of the rules that changed it; or
            None, nothing, and the one rule that leaves it out.

        Raises:
            DataError: A column of identifiers or labels mixes texts and integers.
        """
        changed: set[str] = set()
        try:
            found, text = self._own(row, where, number, changed)
            found |= self._others(row, where, number)
        except MisfitError:
            return None, "", {"unusable"}
        except _LeftOutError as left_out:
            return None, "", {left_out.rule}
        if (rule := self._filtered(text)) is not None:
            return None, "", {rule}
        return found, text, changed

    def _own(
        self, row: Row, where: str, number: int, changed: set[str]
    ) -> tuple[dict[str, Value], str]:
        """Returns the cleaned columns of the record itself, and its text."""
        if self.roles.kind in ONE_LABEL:
            columns = {"text": self.roles.text or "text"}
            if self.roles.kind == "pairs":
                columns["text_b"] = self.roles.text_b or "text_b"
            values = {name: row.get(column) for name, column in columns.items()}
            if not all(isinstance(value, str) for value in values.values()):
                raise MisfitError("no text", where)
            texts = {name: self._text(str(value), changed) for name, value in values.items()}
            label = self._label(row, where, number, changed)
            own = {} if label is None else {"label": label}
            return {**texts, **own}, "\n".join(texts.values())
        record = self._reading.record(row, where, number)
        if isinstance(record, TokenRecord):
            tokens = [self._word(word, changed) for word in record.tokens]
            if list(record.tags) != list(cast(Sequence[str], row.get(self._reading.columns.tags))):
                changed.add("tags")
            return {"tokens": tokens, "tags": list(record.tags)}, " ".join(tokens)
        if isinstance(record, LabelsRecord):
            text = self._text(record.text, changed)
            return {"text": text, "labels": self._several(record.labels, changed)}, text
        if isinstance(record, ScoreRecord):
            text, score = self._text(record.text, changed), record.score
            exact = int(score) if score.is_integer() else score
            return {"text": text, "score": Number(repr(exact))}, text
        assert isinstance(record, ChatRecord)
        if record.text is not None:
            text = self._text(record.text, changed)
            return {"messages": text}, text
        turns = self._turns(record.messages, changed)
        text = "\n".join(str(turn["content"]) for turn in turns)
        if record.rejected is None:
            return {"messages": turns}, text
        return {"chosen": turns, "rejected": self._turns(record.rejected, changed)}, text

    def _text(self, text: str, changed: set[str]) -> str:
        found, names = cleaned(text, self._rules)
        if found is None:
            raise _LeftOutError("unsettled")
        changed |= names
        if not found.strip():
            raise _LeftOutError("empty")
        return whole(found, "text", "")

    def _turns(self, turns: Sequence[Message], changed: set[str]) -> list[dict[str, Value]]:
        """Cleans the turns' contents; an empty one leaves the row out, unless it only instructs."""
        found: list[dict[str, Value]] = []
        for turn in turns:
            if turn.role in ("system", "developer") and not turn.content.strip():
                changed.add("empty")
            else:
                found.append({"role": turn.role, "content": self._text(turn.content, changed)})
        return found

    def _word(self, word: str, changed: set[str]) -> str:
        """Cleans a word of a sentence; the result is one word."""
        found, names = cleaned(word, self._word_rules)
        if not found or found.split() != [found]:
            return word
        changed |= names
        return found

    def _label(self, row: Row, where: str, number: int, changed: set[str]) -> Value:
        column = self.roles.label
        if column is None:
            return None
        value = row.get(column)
        if isinstance(value, str):
            label, _ = cleaned(value, self._rules)
            label = " ".join((label or "").split())
            if label != value:
                changed.add("label")
            value = label
        _check_spelling(value, column, where)
        if written(value) is None:
            raise _LeftOutError("no-label")
        self._compare_kind(column, value, where, number)
        return whole(value, column, where) if isinstance(value, str) else value

    def _several(self, labels: Sequence[str], changed: set[str]) -> list[Value]:
        found: list[Value] = []
        for label in labels:
            new, _ = cleaned(label, self._rules)
            new = " ".join((new or "").split())
            if new != label:
                changed.add("label")
            if new and new not in found:
                found.append(whole(new, "labels", ""))
        return found

    def _others(self, row: Row, where: str, number: int) -> dict[str, Value]:
        """Returns identifiers as they are written, and the columns that are kept."""
        found: dict[str, Value] = {}
        for role in ("person", "site", "id", "split"):
            column = getattr(self.roles, role)
            if column is None:
                continue
            value = row.get(column)
            if role not in self.roles.guessed:
                _check_spelling(value, column, where)
            if written(value) is None:
                if role in self.roles.guessed:
                    continue
                raise _LeftOutError("no-identifier")
            self._compare_kind(column, value, where, number)
            found[role] = whole(value, column, where) if isinstance(value, str) else value
        for name in (UNIT, *self.keep):
            value = row.get(name)
            if value is not None:
                if not isinstance(value, str | bool | Number | Real | Moment):
                    raise DataError(
                        f"{where}: {shown(name)} is {kind_of(value)}, which cannot be kept; "
                        "convert the column to text, or leave it out"
                    )
                found[name] = whole(value, name, where) if isinstance(value, str) else value
        return found

    def _compare_kind(self, column: str, value: Value, where: str, number: int) -> None:
        kind = kind_of(value)
        first, first_row = self._first.setdefault(column, (kind, number))
        if first != kind:
            raise DataError(
                f"{where}: {column} is {kind} here and {first} in row {first_row}, so it is not "
                "known which values are equal; write all as text"
            )

    def _filtered(self, text: str) -> str | None:
        """Returns the rule that leaves a clean text out; None: none does."""
        options = self.options
        if len(text) < options.min_chars or len(text) > (options.max_chars or len(text)):
            return "length"
        if options.languages and language_of(text) not in options.languages:
            return "language"
        return None


class _LeftOutError(Exception):
    """A row that a rule leaves out."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        super().__init__(rule)


def _check_spelling(value: Value, column: str, where: str) -> None:
    if isinstance(value, Moment):
        raise DataError(
            f"{where}: {shown(column)} is {value.kind}, which other files may spell otherwise; "
            "write the column as text to use it as a label or an identifier"
        )
