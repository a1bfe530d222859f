"""`cloister data label`: serves a page on this machine on which a person labels records."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.data_arguments import (
    DataFile,
    EncodingName,
    MessagesColumn,
    NoQuotes,
    Separator,
    TextColumn,
    TokensColumn,
)

if TYPE_CHECKING:
    from socket import socket

    from cloister.labelling.session import LabelSession
    from cloister.labelling.table import TableRow


class AnswerKind(StrEnum):
    """The kinds of answer that an annotator gives about a record."""

    ONE = "one"
    SEVERAL = "several"
    SCORE = "score"
    ENTITIES = "entities"


def label(
    file: DataFile,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="This annotator's own .jsonl file: a new one, or one to continue.",
        ),
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Labels, or types of entities, in the order of their keys. Absent: unchanged.",
        ),
    ] = None,
    kind: Annotated[
        AnswerKind | None,
        typer.Option(
            "--answer",
            help="one label of a text, several or none, a score, or entities: types of words. "
            "Absent: one.",
        ),
    ] = None,
    lowest: Annotated[float | None, typer.Option(help="The lowest score.")] = None,
    highest: Annotated[float | None, typer.Option(help="The highest score.")] = None,
    annotator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The annotator's name. Absent: the name of --out."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Show this number of records, drawn at random. Absent: all."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of that draw: give every annotator the same. Absent: 0."),
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="FILE",
            help="Another annotator's file: at the end the page shows agreement. May be repeated.",
        ),
    ] = None,
    text: TextColumn = None,
    tokens: TokensColumn = None,
    messages: MessagesColumn = None,
    column: Annotated[
        str | None,
        typer.Option(help="Column of answers. Absent: label, labels, score or tags."),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8091,
    encoding: EncodingName = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
) -> None:
    """Label records on a local web page, one at a time, by keyboard.

    Every answer is saved before the next record is shown; run the same command again to continue.
    FILE is not changed. The page can be opened on this machine only, and only by its address with
    the token. It shows private records, so keep the address and the output inside the institution.

    Example: cloister data label notes.jsonl --out ann.jsonl --labels urgent,routine --sample 300
    """
    from cloister.data.detected import detect_form
    from cloister.errors import UsageError
    from cloister.labelling.annotated import read_annotated
    from cloister.labelling.opening import LabelRequest, open_labelling

    request = LabelRequest(
        kind=None if kind is None else kind.value,
        labels=None if labels is None else tuple(name.strip() for name in labels.split(",")),
        lowest=lowest,
        highest=highest,
        column=column,
        annotator=annotator,
        sample=sample,
        seed=seed,
        columns={"text": text, "tokens": tokens, "messages": messages},
    )
    for other in others or []:
        if out.exists() and other.exists() and out.samefile(other):
            raise UsageError(f"--with: {other} is the same as --out; name another annotator's file")
        read_annotated([other])  # report a file that cannot be compared before labelling starts
    form = detect_form(file, encoding, separator, quotes=not no_quotes)
    with _listen(port) as place, open_labelling(form, out, request) as (session, settings):
        facts = {
            "source": form.path.name,
            "file": out.name,
            "annotator": settings.annotator,
            "next": _next(out, others or []),
        }
        _serve(session, facts, partial(_compared, out, others), place, port)
        count = len(session.items)
        typer.echo(f"{session.answered} of {count} records have an answer in {out}", err=True)
        typer.echo(f"next: {facts['next']}", err=True)


def _next(out: Path, others: Sequence[Path]) -> str:
    if others:
        files = " ".join(str(file) for file in (out, *others))
        return f"cloister data agreement {files} --out merged.jsonl --disputed disputed.jsonl"
    return f"cloister data check {out}"


def _compared(out: Path, others: Sequence[Path] | None) -> list[TableRow] | None:
    """Returns the agreement with other annotators, for the end of the page; None: no other file."""
    if not others:
        return None
    from cloister.labelling.table import compared_with

    return compared_with(out, others)


def _listen(port: int) -> socket:
    import socket

    from cloister.errors import NetworkError

    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise NetworkError(
            f"127.0.0.1:{port}: cannot listen there ({error.strerror}); choose another --port"
        ) from error


def _serve(
    session: LabelSession,
    facts: dict[str, str],
    agreement: Callable[[], object],
    place: socket,
    port: int,
) -> None:
    """Serves the page until Ctrl-C, the usual way to end it."""
    import secrets

    import uvicorn

    from cloister.labelling.app import make_label_app

    token = secrets.token_urlsafe(24)  # 192 bits
    config = uvicorn.Config(
        make_label_app(session, token, facts, agreement),
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=3,
        ws="none",
    )
    typer.echo(f"http://127.0.0.1:{port}/#token={token}", err=True)
    typer.echo("open this address on this machine (Ctrl-C ends it)", err=True)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[place])
