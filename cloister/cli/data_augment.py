"""`cloister data augment`: adds copies of records that count in their record's privacy unit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.data_arguments import (
    DataFile,
    EncodingName,
    LabelColumn,
    MessagesColumn,
    NoQuotes,
    Separator,
    TagsColumn,
    TextColumn,
    TokensColumn,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.data.augment.copies import Method
    from cloister.data.augment.files import AugmentReport


def augment(
    file: DataFile,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A new file: .jsonl, .csv or .parquet.")
    ],
    copies: Annotated[int, typer.Option(help="Largest number of copies of each record.")] = 4,
    how: Annotated[
        str | None,
        typer.Option(
            metavar="METHODS",
            help="Methods, separated by commas: drop, swap, typos, synonyms, paraphrase. Absent: "
            "the first three, and those for which an option is given.",
        ),
    ] = None,
    synonyms: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="A file of synonyms: one group per line, separated by commas.",
        ),
    ] = None,
    paraphrase: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            readable=False,
            help="A causal language model on this machine that paraphrases texts. It must "
            "not have been trained on these records.",
        ),
    ] = None,
    share: Annotated[float, typer.Option(help="Share of words that a method changes.")] = 0.1,
    seed: Annotated[str, typer.Option(help="Another seed makes other copies.")] = "",
    text: TextColumn = None,
    label: LabelColumn = None,
    tokens: TokensColumn = None,
    tags: TagsColumn = None,
    messages: MessagesColumn = None,
    encoding: EncodingName = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    as_json: AsJson = False,
) -> None:
    """Write a new file of training records with reworded copies of each record.

    A record and its copies share one value in the column cloister_unit. They are one privacy unit:
    their gradients are averaged before they are clipped, so ε does not change. Labels and tags stay
    the same. privacy.max_rows_per_record in a recipe says how many rows of a record count. A log is
    written beside the new file. Nothing leaves this machine.

    Example: cloister data augment train.csv --out more.jsonl --copies 4 --synonyms words.txt
    """
    from cloister.cli.row_progress import row_progress
    from cloister.data.augment.files import AugmentOptions, augment_file
    from cloister.data.augment.synonyms import read_synonyms
    from cloister.data.detected import detect_form

    methods = [] if how is None else [name.strip() for name in how.split(",")]
    given = {"text": text, "label": label, "tokens": tokens, "tags": tags, "messages": messages}
    found = None
    if paraphrase is not None:
        from cloister.models.paraphrase import Paraphraser

        found = Paraphraser.of(paraphrase)
    options = AugmentOptions(
        copies=copies,
        how=cast("Sequence[Method]", methods),
        share=share,
        seed=seed,
        columns=given,
        synonyms=None if synonyms is None else read_synonyms(synonyms),
        paraphrase=found,
        model=None if found is None else found.sha256,
    )
    source = detect_form(file, encoding, separator, quotes=not no_quotes)
    with row_progress("read") as progress:
        report = augment_file(source, out, options, progress=progress)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    _print(report, out)


def _print(report: AugmentReport, out: Path) -> None:
    from cloister.cli.terminal import Terminal

    console = Terminal()
    console.print(f"{report.records} records, {report.rows} rows with copies; written to {out}")
    by_method = ", ".join(f"{count} by {method}" for method, count in report.methods.items())
    console.print(f"copies: {by_method}")
    columns = (f"{role} = {column}" for role, column in report.roles.items())
    console.print(f"columns: {', '.join(columns)} (guessed: {', '.join(report.guessed) or 'none'})")
    if report.short:
        console.print(
            f"{report.short} records have fewer copies: no more different ones were found"
        )
    console.print(
        f"to use them: privacy.max_rows_per_record = {report.largest} in the recipe (same ε), or "
        "persons as the units"
    )
