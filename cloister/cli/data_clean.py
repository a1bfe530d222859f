"""`cloister data clean`: writes a cleaned copy of a file of records, with a log of every change."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.data_arguments import (
    DataFile,
    EncodingName,
    IdColumn,
    LabelColumn,
    LabelsColumn,
    LabelSeparator,
    MessagesColumn,
    NoQuotes,
    PersonColumn,
    ScoreColumn,
    SecondColumn,
    Separator,
    TagsColumn,
    TextColumn,
    TokensColumn,
    counting,
)


class Copies(StrEnum):
    """Which copies of earlier texts are left out."""

    KEEP = "keep"
    EXACT = "exact"
    NEAR = "near"


def clean(
    file: DataFile,
    out: Annotated[
        Path, typer.Option(help="The new file: .jsonl, .csv or .tsv, also with .gz; UTF-8.")
    ],
    text: TextColumn = None,
    text_b: SecondColumn = None,
    label: LabelColumn = None,
    labels: LabelsColumn = None,
    label_separator: LabelSeparator = None,
    score: ScoreColumn = None,
    tokens: TokensColumn = None,
    tags: TagsColumn = None,
    messages: MessagesColumn = None,
    person: PersonColumn = None,
    site: Annotated[str | None, typer.Option(help="Column of institutions.")] = None,
    id_column: IdColumn = None,
    split: Annotated[str | None, typer.Option(help="Column that says train or test.")] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Keep this column too, as it is; may be repeated."),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Do not apply this rule: html, control, unicode, width, space, boilerplate; "
            "may be repeated.",
        ),
    ] = None,
    min_chars: Annotated[int, typer.Option(min=1, help="Leave out texts of fewer characters.")] = 1,
    max_chars: Annotated[
        int | None, typer.Option(min=1, help="Leave out texts of more characters.")
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE", help="Keep only texts in this language (zh, en, …); may be repeated."
        ),
    ] = None,
    duplicates: Annotated[
        Copies,
        typer.Option(
            help="Leave out copies of earlier texts. COUPLES UNITS: ε is then about the units of "
            "the new file."
        ),
    ] = Copies.KEEP,
    encoding: EncodingName = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    as_json: AsJson = False,
) -> None:
    """Write a clean copy of a file: clean texts, UTF-8, the standard column names.

    Every rule except --duplicates looks at one record alone. The log OUT.cleaning.json lists which
    rule changed or left out which rows. Both files are readable by you only. Nothing is
    overwritten.

    Example: cloister data clean notes.csv --out notes.jsonl --label diagnosis --person patient_id
    """
    from cloister.cli.terminal import Terminal
    from cloister.data.clean.log import COUPLED, count, log_path
    from cloister.data.clean.rows import RowOptions
    from cloister.data.clean.run import CleanOptions, clean_file

    with counting(f"cleaning {file.name}") as on_rows:
        options = CleanOptions(
            columns={
                "text": text,
                "text_b": text_b,
                "label": label,
                "labels": labels,
                "score": score,
                "tokens": tokens,
                "tags": tags,
                "messages": messages,
                "person": person,
                "site": site,
                "id": id_column,
                "split": split,
            },
            encoding=encoding,
            separator=separator,
            quotes=not no_quotes,
            rows=RowOptions(
                skip=tuple(skip or ()),
                min_chars=min_chars,
                max_chars=max_chars,
                languages=tuple(language or ()),
            ),
            keep=tuple(keep or ()),
            duplicates=duplicates.value,
            on_rows=on_rows,
            label_separator=label_separator,
        )
        log = clean_file(file, out, options)
    if as_json:
        typer.echo(json.dumps(log.to_json()))
        return
    console = Terminal()
    source = log.source
    console.print(
        f"{file.name}: {source['format']}, {source['encoding'] or 'binary'}"
        f"{' (' + source['encoding_because'] + ')' if source['encoding'] else ''}",
        soft_wrap=True,
    )
    columns = ", ".join(
        f"{role} = {name}{' (guessed)' if role in log.guessed else ''}"
        for role, name in log.columns.items()
    )
    console.print(f"columns: {columns or 'of a conversation'}", soft_wrap=True)
    if log.left_out:
        console.print(f"left out: {', '.join(log.left_out)} (--keep keeps one)", soft_wrap=True)
    for entry in log.entries:
        changed, dropped = count(entry.changed), count(entry.dropped)
        if changed or dropped:
            line = f"  {entry.rule:<18}{changed + dropped:>8} rows  {entry.what}"
            console.print(line, soft_wrap=True)
    console.print(f"{out}: {log.output['rows']} of {source['rows']} rows", soft_wrap=True)
    console.print(f"log: {log_path(out)}", soft_wrap=True)
    if log.couples_units:
        console.print(f"couples units: {COUPLED}", soft_wrap=True)
