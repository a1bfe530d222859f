"""`cloister synthesize`: synthetic records from a finished language model, with a certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.model_arguments import BaseFolder, FinishedRun, saying


def synthesize(
    run: FinishedRun,
    count: Annotated[int, typer.Option(help="Number of records.")],
    out: Annotated[Path, typer.Option(help="A new JSONL file; an interrupted one is continued.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Public prompts (JSONL): column prompt, and label for labelled texts. Absent: "
            "only with --texts."
        ),
    ] = None,
    is_text: Annotated[
        bool,
        typer.Option(
            "--texts", help="The study learnt plain texts: prompts are beginnings, or absent."
        ),
    ] = False,
    temperature: Annotated[
        float, typer.Option(help="Divides the logits before a token is drawn; 1: as trained.")
    ] = 1.0,
    top_p: Annotated[
        float, typer.Option(help="Draw from the likeliest tokens of this probability; 1: all.")
    ] = 1.0,
    most_tokens: Annotated[int, typer.Option(help="Longest text in tokens.")] = 128,
    min_length: Annotated[int, typer.Option(help="Leave out texts of fewer characters.")] = 1,
    max_length: Annotated[
        int | None, typer.Option(help="Leave out texts of more characters. Absent: none.")
    ] = None,
    keeps_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Keep equal texts. Absent: left out.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the texts and the prompts' order.")] = 0,
    without_promise: Annotated[
        bool,
        typer.Option(
            "--without-promise",
            help="Use a model whose ε is infinite or not known; the card says ε = ∞.",
        ),
    ] = False,
    license_: Annotated[
        str, typer.Option("--license", help="For the metadata: the license's URL or name.")
    ] = "",
    creator: Annotated[str, typer.Option(help="For the metadata: who publishes the file.")] = "",
    url: Annotated[str, typer.Option(help="For the metadata: the page of the data set.")] = "",
    base: BaseFolder = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:N or mps. Absent: a GPU if there is one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write synthetic records with a finished language model (task causal-lm).

    It costs no privacy: no private record is read, so the records have the model's ε, however many
    there are. Beside the file: a card, its facts, and Croissant metadata.

    Example: cloister synthesize runs/chat --count 1000 --prompts prompts.jsonl
    --out synthetic.jsonl
    """
    from cloister.export.croissant import Publication
    from cloister.export.synthetic_card import promise_words
    from cloister.synthesis.writing import MOST_CHARACTERS, SynthesisOptions
    from cloister.synthesis.writing import synthesize as written

    done = written(
        run,
        out,
        SynthesisOptions(
            count=count,
            is_text=is_text,
            temperature=temperature,
            top_p=top_p,
            most_tokens=most_tokens,
            fewest_characters=min_length,
            most_characters=MOST_CHARACTERS if max_length is None else max_length,
            keeps_duplicates=keeps_duplicates,
            seed=seed,
        ),
        prompts=prompts,
        publication=Publication(license=license_, creator=creator, url=url),
        without_promise=without_promise,
        base=base,
        device=device,
        on_stage=saying(),
        on_records=lambda records: typer.echo(f"… {records:,} of {count:,} records", err=True),
    )
    if as_json:
        document = {
            "file": str(done.file),
            "card": str(done.card),
            "metadata": str(done.metadata),
            "facts": done.facts.to_json(),
        }
        typer.echo(json.dumps(document, ensure_ascii=False))
        return
    typer.echo(f"{done.facts.records:,} records: {done.file}")
    for reason, number in done.facts.dropped.items():
        typer.echo(f"left out, {reason}: {number:,}")
    typer.echo(f"promised: {promise_words(done.facts)}")
    typer.echo(f"card: {done.card}")
    typer.echo(f"metadata: {done.metadata}")
