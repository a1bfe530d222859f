"""Opens a labelling: starts a new one, or continues an existing one with its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.detected import Detected
from cloister.errors import UsageError
from cloister.files import bad_file
from cloister.labelling.annotator_answers import AnswerFile
from cloister.labelling.log import LabelSettings, begin, make_file, write_log
from cloister.labelling.scheme import COLUMNS, Kind, LabelScheme
from cloister.labelling.session import LabelSession
from cloister.labelling.to_label import ANNOTATOR, ANSWERS, ROW, read_items


@dataclass(frozen=True, kw_only=True)
class LabelRequest:
    """The options of `cloister data label`; None: the labelling's own setting, or the default.

    Attributes:
        kind: Kind of the answers.
        labels: Allowed labels.
        lowest: Lowest score.
        highest: Highest score.
        column: Column of the answers.
        annotator: The annotator's name.
        sample: How many records to draw.
        seed: Seed of that draw.
        columns: Named columns by role.
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
        options: list[tuple[str, Any, Any]] = [
            ("answer", self.kind, scheme.kind),
            ("labels", self.labels, scheme.labels),
            ("lowest", self.lowest, scheme.lowest),
            ("highest", self.highest, scheme.highest),
            ("column", self.column, before.column),
            ("annotator", self.annotator, before.annotator),
            ("sample", self.sample, before.sample),
            ("seed", self.seed, before.seed),
        ]
        options += [(role, name, before.columns.get(role)) for role, name in self.columns.items()]
        for name, given, was in options:
            if given is not None and given != was:
                said = ",".join(was) if isinstance(was, tuple) else was
                raise UsageError(
                    f"--{name}: {out} was started with {said!r}; leave the option out to continue "
                    "it, or give another --out"
                )


@contextmanager
def open_labelling(
    form: Detected, out: Path, request: LabelRequest
) -> Iterator[tuple[LabelSession, LabelSettings]]:
    """Opens a labelling, and writes its log at the start and at the end.

    Args:
        form: The file to label.
        out: The annotator's file.
        request: The given options.

    Yields:
        The session, and its settings.

    Raises:
        UsageError: Options are invalid, or differ from those that the labelling was started with.
        DataError: A file is damaged, or a record cannot be labelled.
    """
    try:
        # Check everything before the new file is created, so that a failed start leaves nothing.
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
            raise UsageError(f"{form.path}: two rows have the same {ROW}; remove that column")
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
    """Refuses a column of answers that the records have already, because it would be lost."""
    names = form.names()
    # A file of disagreements may have the column: its decisions replace earlier answers.
    if ANSWERS in names:
        return
    if settings.column in names:
        raise UsageError(
            f"--column: {form.path} has a column {settings.column!r} already; name another for the "
            "answers"
        )
    if ANNOTATOR in names:
        raise UsageError(
            f"{form.path}: this is an annotator's file of answers ({ANNOTATOR}); label its source "
            "instead, with another --out"
        )
