"""`cloister synthesize`: synthetic records with a certificate, from a finished language model or by
votes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.arguments import AsJson
from cloister.cli.model_arguments import BaseFolder, saying
from cloister.names import counted

if TYPE_CHECKING:
    from cloister.export.croissant import Publication
    from cloister.export.synthetic_files import Synthesized

# Default of --most-tokens: a message of about a hundred words.
MOST_DRAWN_TOKENS = 128


def synthesize(
    *,
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter. Absent: --votes."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="RUN_OR_ADAPTER: the number of records.")
    ] = None,
    out: Annotated[Path, typer.Option(help="A new JSONL file; an interrupted one is continued.")],
    votes: Annotated[
        Path | None,
        typer.Option(
            metavar="STUDY",
            help="A study of votes (TOML with [votes]): nothing is trained; the sites' records "
            "vote for public texts.",
        ),
    ] = None,
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
    most_tokens: Annotated[int, typer.Option(help="Longest text in tokens.")] = MOST_DRAWN_TOKENS,
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
    """Write synthetic records with a finished language model (task causal-lm), or by votes.

    With a model it costs no privacy: no private record is read, so the records have the model's ε,
    however many there are. With --votes nothing is trained: each site's records vote for public
    texts, and its ledger is charged for its noised counts; the study states everything else.
    Beside the file: a card, its facts, and Croissant metadata.

    Example: cloister synthesize runs/chat --count 1000 --prompts prompts.jsonl
    --out synthetic.jsonl

    Example: cloister synthesize --votes study.toml --out synthetic.jsonl
    """
    from cloister.errors import UsageError
    from cloister.export.croissant import Publication
    from cloister.export.text_filters import MOST_CHARACTERS
    from cloister.synthesis.writing import SynthesisOptions
    from cloister.synthesis.writing import synthesize as written

    published = Publication(license=license_, creator=creator, url=url)
    if votes is not None:
        given = {
            "RUN_OR_ADAPTER": run is not None,
            "--count": count is not None,
            "--prompts": prompts is not None,
            "--texts": is_text,
            "--temperature": temperature != 1.0,
            "--top-p": top_p != 1.0,
            "--most-tokens": most_tokens != MOST_DRAWN_TOKENS,
            "--min-length": min_length != 1,
            "--max-length": max_length is not None,
            "--keep-duplicates": keeps_duplicates,
            "--seed": seed != 0,
            "--without-promise": without_promise,
            "--base": base is not None,
            "--device": device is not None,
        }
        _refuse_beside_votes([name for name, is_given in given.items() if is_given])
        _tell(_voted(votes, out, published), as_json)
        return
    if run is None:
        raise UsageError("RUN_OR_ADAPTER: missing; give a finished run, or a study with --votes")
    if count is None:
        raise UsageError("--count: missing; give the number of records")
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
        publication=published,
        without_promise=without_promise,
        base=base,
        device=device,
        on_stage=saying(),
        on_records=lambda records: typer.echo(f"… {records:,} of {count:,} records", err=True),
    )
    _tell(done, as_json)


def _refuse_beside_votes(given: list[str]) -> None:
    """Refuses options that a study of votes does not have.

    Raises:
        UsageError: Some are given.
    """
    from cloister.errors import UsageError

    if given:
        raise UsageError(
            f"{', '.join(given)}: given with --votes, whose study states everything: candidates, "
            "rounds, the generator and its options in [votes], the seed in [study], the device in "
            "[machine]; leave it out"
        )


def _voted(study: Path, out: Path, published: Publication) -> Synthesized:
    """Runs a study of votes, and tells how far it is.

    Raises:
        CloisterError: The user interrupted it; the same command goes on.
    """
    from cloister.errors import CloisterError
    from cloister.synthesis.voted_records import VoteProgress, synthesize_by_votes

    progress = VoteProgress(
        on_stage=saying(),
        on_note=lambda note: typer.echo(note, err=True),
        on_round=lambda number, sites: typer.echo(
            f"… round {number}: {counted(sites, 'site')} voted", err=True
        ),
    )
    try:
        return synthesize_by_votes(study, out, publication=published, progress=progress)
    except KeyboardInterrupt:
        raise CloisterError(
            "interrupted; the same command goes on, and no site is charged again for a round in "
            "which it voted"
        ) from None


def _tell(done: Synthesized, as_json: bool) -> None:
    """Prints what was written."""
    from cloister.export.synthetic_card import promise_words

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
