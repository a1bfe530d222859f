"""Opens a watch: reads the model's task, the reference, and the form of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cloister.bounds import listed
from cloister.errors import DataError, UsageError
from cloister.export.adapter_folder import adapter_folder
from cloister.files import bad_file, open_file
from cloister.serving.model import about_adapter
from cloister.tasks.config import TaskKind
from cloister.watching.monitor import WatchPlan
from cloister.watching.parsing import MOST_LINE, RowError, RowForm, parse_line
from cloister.watching.reference import FEWEST_REFERENCE, MOST_REFERENCE, make_reference
from cloister.watching.row import METHODS, StreamRow
from cloister.watching.state_file import Refused
from cloister.watching.topics import make_topics
from cloister.watching.watch_file import WatchFile

# The vector of a text.
Embed = Callable[[str], tuple[float, ...]]


@dataclass(frozen=True)
class Watch:
    """A watch, ready to take rows.

    Attributes:
        file: The operator's file.
        model: The name of the adapter's folder or run.
        kind: The task's kind.
        form: The form of rows.
        plan: The monitor's settings.
        unfit: Methods that do not apply, each with the reason.
        digest: Hash of everything on which the meaning of a stored state depends.
        embed: The function that encodes a text; None: no encoder is named.
    """

    file: WatchFile
    model: str
    kind: TaskKind
    form: RowForm
    plan: WatchPlan
    unfit: Mapping[str, str]
    digest: str
    embed: Embed | None = None

    def rows(self, line: bytes | None) -> tuple[StreamRow, ...]:
        """The rows of a line, with their embeddings.

        Raises:
            RowError: It is none.
        """
        found = rows_of_line(line, self.form)
        return found if self.embed is None else embedded(found, self.embed)


def open_watch(run: Path, file: WatchFile) -> Watch:
    """Opens a watch of a finished model, and loads no network except a named encoder.

    Args:
        run: A finished run's folder, or an adapter's.
        file: The watch file.

    Raises:
        UsageError: The task is a plug-in's, or a topic counts an answer that the model never gives.
        BadFileError: There is no adapter.
        DataError: The reference is missing, or its rows do not have the stream's form.
        ModelFileError: The encoder is missing or damaged.
    """
    about = about_adapter(run)
    kind = about.task.kind
    if kind not in METHODS:
        raise UsageError(f"{run}: predictions of {kind} cannot be watched")
    labels = frozenset(about.task.labels)
    if kind in ("token-classification", "recommendation", "scoring", "causal-lm"):
        labels = frozenset()  # these tasks' answers differ in form from the study's labels
    columns = sorted({t.column for t in file.topics.values() if t.column is not None})
    form = RowForm(
        kind,
        labels,
        file.source.text,
        file.source.time,
        file.source.embedding,
        tuple(columns),
        tuple(one.casefold() for one in file.drift.refusals),
    )
    _check_topics(file, form)
    rows: list[StreamRow] = []
    embed = None
    if file.reference.file is not None:
        rows = _reference_rows(file.place(file.reference.file), form)
        embed = None if file.source.encoder is None else _encoder(file.place(file.source.encoder))
        rows = rows if embed is None else list(embedded(rows, embed))
    reference = None
    if rows:
        reference = make_reference(rows, file.drift.projections, file.drift.seed)
    plan = WatchPlan(file.watch.name, file.drift, file.surges, make_topics(file.topics), reference)
    unfit = dict(METHODS[kind].unfit)
    unfit |= _missing(file, rows)
    settings = repr((form.kind, sorted(form.labels), file.source, file.drift, file.surges))
    topics = repr(sorted(file.topics.items()))
    made_of = settings + topics + ("" if reference is None else reference.digest)
    digest = hashlib.sha256(made_of.encode()).hexdigest()
    return Watch(file, adapter_folder(run).name, kind, form, plan, unfit, digest, embed)


def embedded(rows: Sequence[StreamRow], embed: Embed) -> tuple[StreamRow, ...]:
    """Rows, with an embedding of the text where they have a text and no embedding."""
    return tuple(
        one if one.embedding or one.text is None else replace(one, embedding=embed(one.text))
        for one in rows
    )


def _encoder(place: Path) -> Embed:
    from cloister.documents.encoder import open_encoder

    encoder = open_encoder(place)

    def embed(text: str) -> tuple[float, ...]:
        return tuple(map(float, encoder.passages([text])[0]))

    return embed


def _missing(file: WatchFile, rows: list[StreamRow]) -> dict[str, str]:
    """Returns what cannot be measured because the file or the rows lack something."""
    found = {}
    if file.reference.file is None:
        found["drift"] = "no reference is given: set file in [reference]"
    else:
        if not all(row.embedding for row in rows):
            found["KS on embeddings"] = (
                f"the reference's rows have no column {file.source.embedding!r}, and no encoder "
                "makes it of a text"
            )
        if not any(row.text is not None for row in rows):
            found["text length"] = f"the reference's rows have no column {file.source.text!r}"
    if not file.topics:
        found["surges"] = "no topic is given: write a section [topics.NAME]"
    return found


def _check_topics(file: WatchFile, form: RowForm) -> None:
    for name, topic in file.topics.items():
        unknown = [one for one in topic.answers if form.labels and one not in form.labels]
        if unknown:
            raise UsageError(
                f"{file.path}: topics.{name}.answers: {listed(unknown)} given; the model answers "
                f"{listed(sorted(form.labels))}"
            )
        if form.kind == "causal-lm" and not {"refusal", "reply"}.issuperset(topic.answers):
            raise UsageError(
                f"{file.path}: topics.{name}.answers: {listed(topic.answers)} given; for a chat "
                "'refusal' and 'reply' can be counted"
            )
        if form.kind == "scoring" and topic.at_least is None and topic.at_most is None:
            raise UsageError(
                f"{file.path}: topics.{name}: a score needs at_least or at_most; give one of them"
            )


def lines_of(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yields the lines of a whole file with their numbers; None in place of a too long line.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with open_file(path) as file:
            number = 0
            while line := file.readline(MOST_LINE + 1):
                number += 1
                is_long = len(line) > MOST_LINE and not line.endswith(b"\n")
                while is_long and line and not line.endswith(b"\n"):
                    line = file.readline(MOST_LINE + 1)
                if is_long or line.strip():
                    yield number, None if is_long else line.rstrip(b"\n")
    except OSError as error:
        raise DataError(str(bad_file(error, "read"))) from error


def rows_of_line(line: bytes | None, form: RowForm) -> tuple[StreamRow, ...]:
    """Returns the rows of a line, or raises for a line that is too long.

    Raises:
        RowError: The line is too long, or is not a prediction.
    """
    if line is None:
        raise RowError("too long")
    return parse_line(line, form)


def _reference_rows(path: Path, form: RowForm) -> list[StreamRow]:
    rows: list[StreamRow] = []
    refused = Refused()
    for number, line in lines_of(path):
        try:
            rows += rows_of_line(line, form)
        except RowError as error:
            refused = refused.plus(number, error.reason)
        if len(rows) >= MOST_REFERENCE:
            break
    if len(rows) < FEWEST_REFERENCE:
        why = "; ".join(f"line {number}: {reason}" for number, reason in refused.first[:3])
        raise DataError(
            f"{path}: {len(rows)} rows of {form.kind} found"
            + (f", {refused.count} lines are none ({why})" if refused.count else "")
            + f"; at least {FEWEST_REFERENCE} are needed, as cloister predict --out writes them"
        )
    return rows[:MOST_REFERENCE]
