"""A labelling opened: begun with what it is told, or gone on with as it was begun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.detected import Detected
from cloister.errors import UsageError
from cloister.files import bad_file
from cloister.labelling.answers import AnswerFile
from cloister.labelling.items import ANNOTATOR, ANSWERS, ROW, read_items
from cloister.labelling.log import LabelSettings, begin, make_file, write_log
from cloister.labelling.scheme import COLUMNS, Kind, LabelScheme
from cloister.labelling.session import LabelSession


@dataclass(frozen=True, kw_only=True)
class LabelRequest:
    """What somebody asks for; None: as it was begun, or the usual.

    Attributes:
        kind: Of answers.
        labels: Of the scheme.
        lowest: Of a score.
        highest: Of a score.
        column: Of answers.
        annotator: Who answers.
        sample: How many records are drawn.
        seed: Of that draw.
        columns: Columns by role.
    """

    kind: Kind | None = None
    labels: tuple[str, ...] | None = None
    lowest: float | None = None
    highest: float | None = None
    column: str | None = None
    annotator: str | None = None
    sample: int | None = None
    seed: int | None = None
    columns: Mapping[str, str | None]

    def settled(self, out: Path, before: LabelSettings | None) -> LabelSettings:
        """Returns the settings to use: those given, or those of an earlier session.

        Raises:
            UsageError: The settings differ from those of the earlier session.
        """
        if before is not None:
            self._compare(out, before)
            return before
        scheme = LabelScheme(
            kind=self.kind or "one",
            labels=self.labels or (),
            lowest=self.lowest,
            highest=self.highest,
        )
        return LabelSettings(
            scheme=scheme,
            column=self.column or COLUMNS[scheme.kind],
            annotator=self.annotator or out.stem,
            sample=self.sample,
            seed=self.seed or 0,
            columns=self.columns,
        )

    def _compare(self, out: Path, before: LabelSettings) -> None:
        scheme = before.scheme
        told: list[tuple[str, Any, Any]] = [
            ("answer", self.kind, scheme.kind),
            ("labels", self.labels, scheme.labels),
            ("lowest", self.lowest, scheme.lowest),
            ("highest", self.highest, scheme.highest),
            ("column", self.column, before.column),
            ("annotator", self.annotator, before.annotator),
            ("sample", self.sample, before.sample),
            ("seed", self.seed, before.seed),
        ]
        told += [(role, name, before.columns.get(role)) for role, name in self.columns.items()]
        for name, given, was in told:
            if given is not None and given != was:
                said = ",".join(was) if isinstance(was, tuple) else was
                raise UsageError(
                    f"--{name}: {out} was begun with {said!r}; leave the option out to go on, or "
                    "give another --out"
                )


@contextmanager
def open_labelling(
    form: Detected, out: Path, request: LabelRequest
) -> Iterator[tuple[LabelSession, LabelSettings]]:
    """Opens a labelling, and writes its log when it begins and when it ends.

    Args:
        form: What is labelled.
        out: The annotator's file.
        request: What is asked for.

    Yields:
        The session, and the settings in force.

    Raises:
        UsageError: What is asked for cannot be, or is not what the file was begun with.
        DataError: A file is damaged, or a record cannot be labelled.
    """
    try:
        # All that can be wrong is found before a new file is made.
        before = begin(out, form)
        settings = request.settled(out, before)
        _check_column(form, settings)
        items, rows = read_items(
            form, settings.scheme.kind, settings.columns, settings.sample, settings.seed
        )
        if before is None:
            make_file(out)
        by_number = {item.number: item for item in items}
        if len(by_number) < len(items):
            raise UsageError(f"{form.path}: two rows have one {ROW}; leave that column out")
        with AnswerFile(
            out, settings.scheme, settings.column, settings.annotator, by_number
        ) as file:
            session = LabelSession(items, settings.scheme, file)
            write_log(form, out, settings, session.answered, rows)
            try:
                yield session, settings
            finally:
                write_log(form, out, settings, session.answered, rows)
    except OSError as error:
        raise bad_file(error) from error


def _check_column(form: Detected, settings: LabelSettings) -> None:
    """Refuses a column of answers that the records have already: they would be lost."""
    names = form.names()
    # What somebody decides on disagreements is an answer in place of others.
    if ANSWERS in names:
        return
    if settings.column in names:
        raise UsageError(
            f"--column: {form.path} has a column {settings.column!r} already; name another for the "
            "answers"
        )
    if ANNOTATOR in names:
        raise UsageError(
            f"{form.path}: an annotator's own file ({ANNOTATOR}); label the file that it was made "
            "from, with another --out"
        )
