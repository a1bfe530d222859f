"""`cloister data check`: shows what a file of records has, and what looks wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.data_arguments import (
    DataFile,
    EncodingName,
    IdColumn,
    ItemsColumn,
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

if TYPE_CHECKING:
    from cloister.data.check.report import CheckReport
    from cloister.data.check.tokens import CountTokens

# Labels and languages that the terminal shows; the page and --json have more.
SHOWN = 12


def check(
    file: DataFile,
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
    id_column: IdColumn = None,
    split: Annotated[
        str | None,
        typer.Option(help="Column that says train or test: the parts are compared."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="The public test file: texts and persons in both are counted."
        ),
    ] = None,
    items: ItemsColumn = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="A base model: count tokens per record, and what a maximal length would cut."
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="The maximal length, for --base. Absent: several.")
    ] = None,
    encoding: EncodingName = None,
    separator: Separator = None,
    no_quotes: NoQuotes = False,
    no_near: Annotated[
        bool,
        typer.Option(
            "--no-near", help="Do not search for near duplicates, which takes most of the time."
        ),
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(help="Write a page (HTML) with plots, readable by you only."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a file of records has, and what looks wrong in it.

    The output is private: it has true counts of private records. The exit code is 0 even with
    findings, and 3 if the file cannot be read.

    Example: cloister data check notes.csv --label diagnosis --person patient_id --page notes.html
    """
    from cloister.data.check.page import write_page
    from cloister.data.check.report import CheckOptions, check_file
    from cloister.data.outputs import check_place
    from cloister.errors import UsageError

    if page is not None:
        check_place(page, "--page")
    if max_length is not None and base is None:
        raise UsageError("--max-length: needs a base model to count tokens; give --base too")
    roles = {
        "text": text,
        "text_b": text_b,
        "label": label,
        "labels": labels,
        "score": score,
        "items": items,
        "tokens": tokens,
        "tags": tags,
        "messages": messages,
        "person": person,
        "id": id_column,
        "split": split,
    }
    with counting(f"reading {file.name}") as on_rows:
        options = CheckOptions(
            columns=roles,
            encoding=encoding,
            separator=separator,
            quotes=not no_quotes,
            test=test,
            near=not no_near,
            count_tokens=_token_counter(base) if base is not None else None,
            max_length=max_length,
            on_rows=on_rows,
            label_separator=label_separator,
        )
        report = check_file(file, options)
    if page is not None:
        write_page(report, page)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    _show(report, page)


def _token_counter(base: str) -> CountTokens:
    """Counts a text's tokens under a base, special tokens included."""
    from cloister.models.base import find_base, load_tokenizer

    tokenizer = load_tokenizer(find_base(base))

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]

    return count


def _show(report: CheckReport, page: Path | None) -> None:
    from rich.table import Table

    from cloister.cli.terminal import Terminal
    from cloister.names import counted

    console, sections = Terminal(), report.sections
    console.print(f"{report.detected.path.name}: {report.detected}", soft_wrap=True)
    endings = report.detected.encoding.line_endings if report.detected.encoding else {}
    endings_text = f"; line endings {_listed(endings)}" if endings else ""
    console.print(f"{counted(report.rows, 'row')}, read as {report.roles.kind}{endings_text}")
    roles = [
        f"{role} = {name}{' (guessed)' if role in report.roles.guessed else ''}"
        for role, name in report.roles.columns().items()
    ]
    console.print(f"columns: {', '.join(roles) or 'of a conversation'}", soft_wrap=True)
    table = Table(box=None, header_style="bold")
    for heading in ("column", "holds", "missing"):
        table.add_column(heading, justify="right" if heading == "missing" else "left")
    for column in sections["columns"][:SHOWN]:
        table.add_row(column["name"], _listed(column["kinds"]), str(column["missing"]))
    console.print(table)
    for line in _lines(sections):
        console.print(line, soft_wrap=True)
    console.print("what looks wrong:" if report.findings else "nothing looks wrong")
    for finding in report.findings:
        console.print(f"- [{finding.code}] {finding}", soft_wrap=True)
    if page is not None:
        console.print(f"page: {page} (readable by you only)", soft_wrap=True)


def _lines(sections: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each section of a report."""
    texts = sections["texts"]
    yield f"characters: {texts['shortest']} to {texts['longest']}, median {texts['median']}"
    languages = sections["languages"]
    yield f"languages of {languages['sampled']} texts: {_listed(languages['counts'])}"
    if "labels" in sections:
        scheme = sections["labels"].get("scheme")
        tags = f"; tags in {scheme}" if scheme else ""
        without = sections["labels"].get("texts_without")
        bare = "" if without is None else f"; {without} texts without one"
        yield f"labels: {_listed(sections['labels']['counts'])}{tags}{bare}"
    if "scores" in sections and sections["scores"]["count"]:
        scores = sections["scores"]
        yield f"scores: {scores['lowest']:g} to {scores['highest']:g}, mean {scores['mean']:.3g}"
    if "copies" in sections:
        made = sections["copies"]
        yield (
            f"copies: {made['rows']} rows of {made['records']} records (cloister_unit), at most "
            f"{made['most_rows_of_a_record']} of one"
        )
    if "units" in sections:
        units = sections["units"]
        yield f"persons: {units['units']}; the largest has {units['largest_unit']} records"
    duplicates = sections["duplicates"]
    near = f"{duplicates['near']} near" if duplicates["near_sought"] else "near not sought"
    yield f"copies of an earlier text: {duplicates['exact']} exact, {near}"
    if "tokens" in sections:
        tokens = sections["tokens"]
        yield (
            f"tokens: median {tokens['median']}, 95% up to {tokens['p95']}, "
            f"most {tokens['longest']}"
        )
        for cut in tokens["cuts"]:
            yield (
                f"  max_length {cut['max_length']} cuts {cut['texts_cut']} texts, "
                f"{cut['share_of_tokens_cut']:.1%} of all tokens"
            )


def _listed(counts: dict[str, int]) -> str:
    shown = [f"{name} {count}" for name, count in list(counts.items())[:SHOWN]]
    return ", ".join(shown) + (", …" if len(counts) > SHOWN else "")
