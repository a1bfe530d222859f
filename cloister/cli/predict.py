"""`cloister predict`: predicts with a finished adapter for records without labels."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.begun_file import begun_file
from cloister.cli.prediction_file import row_texts, write_predictions
from cloister.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cloister.serving.abstention import Decided
    from cloister.serving.inputs import Input
    from cloister.serving.model import Model
    from cloister.serving.predictions import Prediction

# Most predictions shown without --json or --out, and most labels of each.
SHOWN, SHOWN_LABELS = 50, 3


def predict(
    adapter: Annotated[
        Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run or its adapter.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Records to predict for: any format of a data file, without labels."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A text to predict for; may be repeated.")
    ] = None,
    text_b: Annotated[
        list[str] | None,
        typer.Option("--text-b", help="For text pairs: the second text, one for each --text."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write predictions to this file, in the input's order: one JSON object per line, "
            "or a table if its name ends in .csv and the task is of whole records (labels, scores)."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep what is written when the command is ended early, and go on from there when "
            "it is given again: the file is the one of an unbroken run. With --data and --out.",
        ),
    ] = False,
    top: Annotated[
        int | None, typer.Option(min=1, help="For recommendation: items in each list. Absent: 10.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Leave out answers with a lower probability (for passages: similarity). If the "
            "only label is left out, the reason is stated. Absent: nothing is left out.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:N or mps. Absent: a CUDA GPU if there is one."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Folder of the base model. Absent: the base that the adapter names."),
    ] = None,
) -> None:
    """Predict labels, scores, items, entities or replies for your own records.

    The columns must have the same names as in training. A token classifier splits a text into words
    at spaces. For a chat, a text is one turn of the user; for recommendation, it is the ids of a
    person's items, separated by spaces. `is_cut` means that a text was longer than the study's
    task.max_length, so its end was not read.

    Example: cloister predict runs/bank --text "my card was stolen" --text "wrong PIN"
    """
    if (data is None) == (not text):
        raise UsageError("give either --data FILE or --text TEXT (which may be repeated)")
    if data is not None and text_b:
        raise UsageError("--text-b needs --text; in a file both texts are columns")
    if out is not None and out.exists() and not resume:
        raise UsageError(f"{out} exists already and is not overwritten; choose another --out")
    if resume and (data is None or out is None or as_json):
        raise UsageError("--resume: needs --data FILE and --out FILE, without --json")
    from cloister.data.records import POOLED
    from cloister.data.unlabelled import unlabelled_rows
    from cloister.export.adapter_folder import adapter_folder
    from cloister.serving.abstention import check_threshold
    from cloister.serving.model import about_adapter, load

    # Check the records before the base is loaded, which takes longest.
    about = about_adapter(adapter)
    records = about.task.records
    as_table = out is not None and out.suffix.lower() == ".csv"
    if as_table and records not in POOLED:
        raise UsageError(
            f"--out {out}: predictions of {about.task.kind} do not fit a table; name a .jsonl file"
        )
    if top is not None and records != "items":
        raise UsageError(f"--top {top}: for recommendation only; leave it out")
    if threshold is not None:
        check_threshold(about.task.kind, threshold)
    inputs: Iterable[Input]
    if data is not None:  # read twice, so that a long file needs no memory
        count = sum(1 for _ in unlabelled_rows(data, records, about.data))
        if out is not None and out.exists():
            _check_finished(out, count, as_table=as_table)
            typer.echo(f"{out} is finished: it has all {count:,} predictions", err=True)
            return
        inputs = unlabelled_rows(data, records, about.data)
    else:
        inputs = _texts(text or [], text_b or [], is_pair=records == "pairs")
    typer.echo("… loading the base model", err=True)
    model = load(adapter, device, base=base)
    if resume:
        assert data is not None
        assert out is not None
        made_of = _made_of(adapter, model, data, top=top, threshold=threshold, as_table=as_table)
        with begun_file(out, made_of) as begun:
            existing = f", {begun.rows:,} of which are there" if begun.rows else ""
            typer.echo(f"… predicting for {count:,} records{existing}", err=True)
            rest = islice(inputs, begun.rows, None)
            new = model.stream(rest, top=top, first=begun.rows + 1)
            texts = row_texts(
                _of_one_file(_decided(new, threshold), data, str(made_of["data"])),
                about.task.labels,
                as_table=as_table,
                is_first=not begun.rows,
            )
            try:
                written = begun.write(texts, model.streamed)
            except BaseException:
                kept = (
                    f"{begun.rows:,} predictions are kept; the same command goes on with the next"
                )
                typer.echo(kept, err=True)
                raise
        typer.echo(f"{written} predictions: {out}", err=True)
        return
    if data is not None:
        typer.echo(f"… predicting for {count:,} records", err=True)
    found = _decided(model.stream(inputs, top=top), threshold)
    if out is not None and not as_json:
        written = write_predictions(out, found, about.task.labels, as_table=as_table)
        typer.echo(f"{written} predictions: {out}", err=True)
        return
    predictions = list(found)
    if out is not None:
        write_predictions(out, predictions, about.task.labels, as_table=as_table)
    if as_json:
        document = {
            "adapter": str(adapter_folder(adapter)),
            "task": about.task.kind,
            "predictions": [one.to_json() for one in predictions],
        }
        typer.echo(json.dumps(document))
    else:
        _show(model, predictions)


def _check_finished(out: Path, count: int, *, as_table: bool) -> None:
    """Refuses a file whose number of predictions is not that of the records."""
    import csv

    from cloister.files import bad_file

    try:
        with out.open(encoding="utf-8", newline="") as file:
            rows = sum(1 for _ in csv.reader(file)) - 1 if as_table else sum(1 for _ in file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, OSError):
            raise bad_file(error, "read") from error
        rows = -1
    if rows != count:
        raise UsageError(
            f"{out} exists already, and is not a file of {count:,} predictions; choose another "
            "--out"
        )


def _decided(
    predictions: Iterator[Prediction], threshold: float | None
) -> Iterator[Prediction | Decided]:
    """Predictions, without what is less probable than the threshold if there is one."""
    from cloister.serving.abstention import abstaining

    for one in predictions:
        yield one if threshold is None else abstaining(one, threshold)


def _of_one_file(
    predictions: Iterator[Prediction | Decided], data: Path, sha256: str
) -> Iterator[Prediction | Decided]:
    """Predictions of a file, which must not change until the last; else they are of two."""
    from cloister.errors import DataError
    from cloister.files import bad_file, stamp_of

    yield from predictions
    try:
        same = stamp_of(data).sha256 == sha256
    except OSError as error:
        raise bad_file(error, "read") from error
    if not same:
        raise DataError(f"{data}: changed while it was read; run this again with another --out")


def _made_of(
    adapter: Path,
    model: Model,
    data: Path,
    *,
    top: int | None,
    threshold: float | None,
    as_table: bool,
) -> dict[str, object]:
    """What a file of predictions is of: it goes on if all of it is the same."""
    from cloister import __version__
    from cloister.evidence.fingerprint import adapter_files, adapter_sha256
    from cloister.export.adapter_folder import adapter_folder
    from cloister.files import bad_file, stamp_of

    try:
        digest = stamp_of(data).sha256
    except OSError as error:
        raise bad_file(error, "read") from error
    return {
        "adapter": adapter_sha256(adapter_files(adapter_folder(adapter))),
        "base": model.workspace.base_sha256,
        "data": digest,
        "top": top,
        "threshold": threshold,
        "format": "csv" if as_table else "jsonl",
        # Of other processors and versions the last digits may differ.
        "device": model.workspace.network.device.type,
        "version": __version__,
    }


def _texts(first: Sequence[str], second: Sequence[str], *, is_pair: bool) -> Sequence[Input]:
    """Returns the texts of the command line, as pairs if the task reads pairs."""
    if not is_pair:
        if second:
            raise UsageError(
                "--text-b given, but this adapter's task reads single texts; leave it out"
            )
        return first
    if len(first) != len(second):
        raise UsageError(
            f"--text given {len(first)} times and --text-b {len(second)}; this adapter's task "
            "reads pairs: give one --text-b for each --text"
        )
    return list(zip(first, second, strict=True))


def _show(model: Model, predictions: Sequence[Prediction | Decided]) -> None:
    from cloister.cli.terminal import Terminal

    console = Terminal()
    for number, one in enumerate(predictions[:SHOWN], 1):
        console.print(f"{number:>4}  {_line(one)}", soft_wrap=True)
    if len(predictions) > SHOWN:
        console.print(f"… and {len(predictions) - SHOWN} more: use --out FILE or --json")
    cut = sum(one.is_cut for one in predictions)
    if cut:
        console.print(
            f"{cut} of {len(predictions)} were longer than the {model.about.task.max_length} "
            "tokens that the study reads; their ends were cut"
        )


def _line(prediction: Prediction | Decided) -> str:
    from cloister.serving.abstention import Decided
    from cloister.serving.predictions import (
        Classified,
        Labelled,
        Ranked,
        Retrieved,
        Scored,
        Tagged,
    )

    if isinstance(prediction, Decided) and not prediction.label:
        return f"no label: the most probable has {prediction.confidence:.3f}"
    if isinstance(prediction, Classified | Decided):
        ranked = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])
        rest = ", ".join(f"{name} {share:.3f}" for name, share in ranked[1:SHOWN_LABELS])
        first = f"{prediction.label} {prediction.probabilities[prediction.label]:.3f}"
        return f"{first}  ({rest})" if rest else first
    if isinstance(prediction, Labelled):
        named = (f"{name} {prediction.probabilities[name]:.3f}" for name in prediction.labels)
        return ", ".join(named) or "no label"
    if isinstance(prediction, Scored):
        grade = "" if prediction.grade is None else f"  (grade {prediction.grade:g})"
        return f"{prediction.score:.3f}{grade}"
    if isinstance(prediction, Retrieved):
        nearest = prediction.passages[:SHOWN_LABELS]
        return ", ".join(f"{one.id} {one.similarity:.3f}" for one in nearest) or "no passage"
    if isinstance(prediction, Ranked):
        shown = ", ".join(f"{one.item} {one.score:.3f}" for one in prediction.items[:SHOWN_LABELS])
        more = len(prediction.items) - SHOWN_LABELS
        return f"{shown}, and {more} more" if more > 0 else shown
    if isinstance(prediction, Tagged):
        found = [
            f"{one.type}: {one.text} ({one.start}-{one.end}, {one.probability:.3f})"
            for one in prediction.entities
        ]
        return "; ".join(found) or "no entity"
    return prediction.reply
