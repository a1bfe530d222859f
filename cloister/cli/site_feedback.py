"""`cloister site feedback list|review|export`: what people said of answers, and what becomes of
it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloister.cli.arguments import AsJson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.feedback.entries import Feedback
    from cloister.feedback.store import FeedbackStore

app = typer.Typer(
    help="What people said of the model's answers (cloister serve --feedback).",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The store of `serve --feedback`.")]
Key = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Its key file, where it is encrypted.")
]
# For every piece of feedback that waits, in place of its id.
ALL = "all"
# Characters of a value in a list, and of one that is reviewed.
_SHORT, _LONG = 60, 2000


@app.command("list")
def list_(
    file: File,
    key: Key = None,
    status: Annotated[
        str | None, typer.Option(help="Only what is waiting, accepted or rejected.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what people said of answers, oldest first.

    Example: cloister site feedback list feedback.db
    """
    from cloister.errors import UsageError
    from cloister.feedback.entries import ReviewState

    if status is not None and status not in {one.value for one in ReviewState}:
        raise UsageError(f"--status: {status} given; waiting, accepted or rejected is needed")
    found = _store(file, key).all(None if status is None else ReviewState(status))
    if as_json:
        typer.echo(json.dumps({"feedback": [one.to_json() for one in found]}))
        return
    for one in found:
        content = one.content
        said = "right" if content.is_right else f"wrong: {_text(content.correction, _SHORT)}"
        mark = f" [never trained on: {content.drew_on}]" if content.drew_on else ""
        typer.echo(
            f"{one.id}  {one.status.value:<8}  {one.at}  {_text(content.asked, _SHORT)} → "
            f"{_text(content.answer, _SHORT)}; {said}{mark}"
        )
    if not found:
        typer.echo("nothing there")
    elif any(one.status is ReviewState.WAITING for one in found):
        opened = "" if key is None else f" --key {key}"
        typer.echo(f"next: cloister site feedback review {file}{opened}")


@app.command("review")
def review(
    file: File,
    key: Key = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Accept it without asking; all: whatever waits. Repeat."),
    ] = None,
    reject: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Reject it without asking; all: whatever waits. Repeat."),
    ] = None,
    erase: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Delete it, as when consent is withdrawn. Repeat."),
    ] = None,
) -> None:
    """Accept or reject what people said, one by one at the terminal, or by id.

    What drew on documents or on a personal adapter cannot be accepted.

    Example: cloister site feedback review feedback.db
    """
    from cloister.errors import UsageError
    from cloister.feedback.entries import ReviewState

    store = _store(file, key)
    accepted, rejected, erased = accept or [], reject or [], erase or []
    if not (accepted or rejected or erased):
        if not sys.stdin.isatty():
            raise UsageError(
                "there is no terminal to ask the questions; give --accept ID, --reject ID or "
                "--erase ID, as cloister site feedback list shows the ids"
            )
        _ask(store)
        return
    if ALL in accepted and ALL in rejected:
        raise UsageError("--accept all, --reject all: give one of them")
    for named, status in ((rejected, ReviewState.REJECTED), (accepted, ReviewState.ACCEPTED)):
        ids = [one for one in named if one != ALL]
        for identifier in ids:
            store.decide(identifier, status)
        if ALL in named:
            waiting = [
                one.id
                for one in store.all(ReviewState.WAITING)
                if status is ReviewState.REJECTED or not one.content.drew_on
            ]
            for identifier in waiting:
                store.decide(identifier, status)
            ids += waiting
        if named:
            typer.echo(f"{status.value}: {len(ids)}")
    for identifier in erased:
        store.erase(identifier)
    if erased:
        typer.echo(f"erased: {len(erased)}")


@app.command("export")
def export(
    file: File,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new file: .jsonl.")],
    key: Key = None,
    site: Annotated[
        Path | None,
        typer.Option(
            metavar="SITE.TOML",
            help="Whose columns and privacy unit the rows have. Absent: the usual names (text, "
            "label, …), and records as units.",
        ),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            "--with",
            metavar="FILE",
            help="The records so far: they follow the corrections in the new file.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what was accepted as training records, each in its record's or person's unit.

    Name the new file in site.toml (`site.data`): the ledger is of the data set, not of one file,
    and goes on.

    Example: cloister site feedback export feedback.db --out more.jsonl --site site.toml --with
    records.jsonl
    """
    from cloister.data.config import DataConfig
    from cloister.data.detected import detect_form
    from cloister.feedback.export import export_feedback

    columns, persons = DataConfig(), False
    if site is not None:
        from cloister.client.site_file import read_site
        from cloister.privacy.units import Unit

        read = read_site(site)
        columns, persons = read.columns, read.policy.privacy.unit is Unit.PERSON
    found = _store(file, key).all()
    before = None if records is None else detect_form(records)
    report = export_feedback(found, out, columns, persons=persons, records=before)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **report.to_json()}))
        return
    typer.echo(f"{out}: {report.written} corrections, then {report.before} records")
    for why, count in report.left_out.items():
        typer.echo(f"left out: {count}: {why}")
    if report.unknown:
        typer.echo(
            f"corrections name {report.unknown} records that {records} does not have, as "
            "cloister_unit: each is a new unit. If one is of a record there, that record would be "
            "two units, and its ε double: correct its id"
        )
    if not persons and report.most_rows > 1:
        typer.echo(
            f"one unit has up to {report.most_rows} rows: privacy.max_rows_per_record = "
            f"{report.most_rows} in the recipe makes all of them count (same ε); without it, the "
            "first correction of each unit does"
        )


def _store(file: Path, key: Path | None) -> FeedbackStore:
    from cloister.feedback.store import FeedbackStore

    return FeedbackStore(file, key)


def _ask(store: FeedbackStore) -> None:
    """Shows what waits, and asks of each."""
    from cloister.feedback.entries import ReviewState

    waiting = store.all(ReviewState.WAITING)
    for number, one in enumerate(waiting, 1):
        typer.echo(f"\n{number} of {len(waiting)}, {one.id}, {one.at}")
        for line in _lines(one):
            typer.echo(line)
        choices = ["r", "s", "q"] if one.content.drew_on else ["a", "r", "s", "q"]
        asked = "reject, skip, quit" if one.content.drew_on else "accept, reject, skip, quit"
        answer = ""
        while answer not in choices:
            answer = typer.prompt(f"{asked} ({'/'.join(choices)})").strip().lower()[:1]
        if answer == "q":
            break
        if answer in "ar":
            store.decide(one.id, ReviewState.ACCEPTED if answer == "a" else ReviewState.REJECTED)
    left = len(store.all(ReviewState.WAITING))
    typer.echo(f"{left} wait" if left else "nothing waits")


def _lines(one: Feedback) -> Sequence[str]:
    content = one.content
    own = [f"{name} {value}" for name, value in _named(one) if value]
    lines = [
        f"  about       {', '.join(own)}; sent by {one.caller}; version {content.version}",
        f"  asked       {_text(content.asked, _LONG)}",
        f"  answered    {_text(content.answer, _LONG)}",
        "  said to be  right"
        if content.is_right
        else f"  said to be  wrong; right: {_text(content.correction, _LONG)}",
    ]
    if content.drew_on:
        lines.append(f"  never trained on: the answer drew on {content.drew_on}")
    return lines


def _named(one: Feedback) -> list[tuple[str, str | None]]:
    return [("record", one.content.unit), ("person", one.content.person)]


def _text(value: Any, most: int) -> str:
    """A value in one line of bounded length."""
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
