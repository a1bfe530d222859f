"""Compresses a finished model: prunes, distils, measures, and writes a folder atomically."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from cloister.errors import UsageError
from cloister.export.adapter_folder import read_released
from cloister.export.card_page import PAGE, SizeBar, card_page
from cloister.export.compress.attention_heads import drop_heads
from cloister.export.compress.card import (
    Done,
    compressed_card,
    compressed_section,
    steps,
    why_epsilon_stays,
)
from cloister.export.compress.distance import Reference, reference
from cloister.export.compress.distil import Reader, distil
from cloister.export.compress.folder import ADAPTER, root_form, write_folder
from cloister.export.compress.layers import drop_layers
from cloister.export.compress.measured import CompressedRow, measured
from cloister.export.compress.public_texts import PublicTexts, public_texts
from cloister.export.compress.settings import LEARNING_RATE, TEMPERATURE, Compression
from cloister.export.compress.sparsity import prune_weights, zipped_bytes
from cloister.export.compress.student import open_student
from cloister.export.forms.card import own_card
from cloister.export.forms.finished import Finished, open_finished
from cloister.export.forms.merged import unmergeable
from cloister.export.forms.public_test import PublicTest, public_test
from cloister.files import bad_file
from cloister.models.kinds import read_config
from cloister.staging import staging
from cloister.tasks.task import Example

FACTS = "compress.json"


@dataclass(frozen=True, kw_only=True)
class CompressedModel:
    """The result of `compress_model`: the folder, and measurements before and after.

    Attributes:
        folder: The compressed model's folder.
        form: The form that transformers loads: `merged`, `sentence-transformers`, or `base alone`.
        steps: Description of each step.
        rows: Measurements of the trained and the compressed model.
        metric: Name of the metric in `score`.
        test: Description of the records that were scored; None: nothing was scored.
    """

    folder: Path
    form: str
    steps: tuple[str, ...]
    rows: tuple[CompressedRow, ...]
    metric: str
    test: str | None


def compress_model(
    run: str | Path,
    out: str | Path,
    *,
    drop_layers: int = 0,
    drop_heads: int = 0,
    sparsity: float = 0.0,
    epochs: int = 0,
    student: str | None = None,
    public: str | Path | None = None,
    test: str | Path | None = None,
    base: str | None = None,
    temperature: float = TEMPERATURE,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    on_stage: Callable[[str], None] | None = None,
) -> CompressedModel:
    """Writes a smaller version of a finished run's model, which loads with and without Cloister.

    Layers are dropped first, then heads, then weights; the remaining model is distilled last.

    Args:
        run: A finished run's folder, an adapter's, or a compressed model's.
        out: A new folder.
        drop_layers: Number of layers to drop.
        drop_heads: Number of groups of attention heads to drop from each layer.
        sparsity: Share of each weight matrix to set to zero, from 0 to below 1.
        epochs: Passes of the student over the public texts; 0: nothing is distilled.
        student: Another base that learns from the trained model; None: the pruned model learns.
        public: A file of public texts, rows as `predict` reads them; None: built-in sentences,
            which are too few to distil from.
        test: A file of public records to score; None: the run's public test set, if any.
        base: The base's folder or hub id on this machine; None: the one that the adapter names.
        temperature: Temperature of the soft labels.
        learning_rate: Peak learning rate of the distillation.
        seed: Seed of the order of texts in the distillation.
        on_stage: Called with a description of each stage when it begins; None: not called.

    Returns:
        The folder, and size, latency, score and distance before and after.

    Raises:
        UsageError: Options contradict each other or do not fit the base or task, or the folder
            exists already.
        RefusedError: `public` or `test` holds the study's private records.
        BadFileError: There is no finished adapter, or a file cannot be read or written.
        DataError: A file of public texts does not fit the task.
        ModelFileError: A base is missing or not the one that was trained on.

    Guarantees:
        Private records are read only to check that the public files do not contain them. The model
        is post-processing of the released adapter, so its ε is the adapter's. The folder appears
        complete or not at all, and its logits are within 1e-4 of the measured model's, relative to
        the largest.
    """
    settings = Compression(
        drop_layers=drop_layers,
        drop_heads=drop_heads,
        sparsity=sparsity,
        epochs=epochs,
        student=student,
        temperature=temperature,
        learning_rate=learning_rate,
        seed=seed,
    )
    say = on_stage or (lambda stage: None)
    target = Path(out)
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already and is not overwritten; choose another --out")
    if epochs and public is None:
        raise UsageError("epochs: given without public texts to learn from; give --public FILE")
    say("loading the base model")
    source = open_finished(Path(run), base)
    if not source.can_merge:
        raise UsageError(f"{unmergeable(source)}; so the model cannot be compressed")
    if read_config(source.workspace.folder).is_encoder_decoder:
        raise UsageError(
            f"the study used only the encoder of this {source.network.base.config.model_type}, "
            "and transformers cannot save it without its decoder, so the model cannot be "
            "compressed"
        )
    texts = public_texts(source, None if public is None else Path(public))
    scored = public_test(source, None if test is None else Path(test))
    examples = texts.examples(source)
    source.unload()
    say("measuring the trained model")
    known = reference(source.network, source.task, examples)
    before = measured("trained", source, source.logits, scored, known)
    finished, done = compressed(source, settings, texts, examples, known, say)
    if finished is not source:  # another base's tokenizer may cut texts differently
        scored = public_test(finished, None if test is None else Path(test))
        known = known.read_by(finished.task, texts.examples(finished))
    with staging(target, "compressed") as stage:
        folder = stage / "model"
        folder.mkdir()
        say("writing the compressed model")
        logits = write_folder(finished, source, folder)
        zipped = zipped_bytes(folder) if sparsity else None
        after = measured("compressed", finished, logits, scored, known, zipped=zipped)
        form, rows = root_form(finished), (before, after)
        _describe(source, finished, done, rows, scored, folder)
        try:
            folder.rename(target)
        except OSError as error:
            raise bad_file(error, "written") from error
    return CompressedModel(
        folder=target,
        form=form,
        steps=tuple(steps(done)),
        rows=rows,
        metric=source.task.primary_metric,
        test=None if scored is None else scored.words,
    )


def compressed(
    source: Finished,
    settings: Compression,
    texts: PublicTexts,
    examples: Sequence[Example],
    known: Reference,
    say: Callable[[str], None],
) -> tuple[Finished, Done]:
    """Prunes a model in place and distils into the pruned model, or into another base.

    Args:
        source: The finished model, without its adapter's modules.
        settings: The settings of the compression.
        texts: Public texts.
        examples: The same texts, encoded for the finished model.
        known: The finished model's outputs on them.
        say: Called with a description of each stage when it begins.
    """
    network = source.network
    teacher = copy.deepcopy(network) if settings.epochs and settings.student is None else network
    finished = source
    if settings.student is not None:
        say(f"loading the student {settings.student}")
        finished = open_student(source, settings.student)
    layers: tuple[int, ...] = ()
    heads: tuple[tuple[int, ...], ...] = ()
    masks: Mapping[str, Tensor] = {}
    losses: tuple[float, ...] = ()
    if settings.drop_layers:
        layers = drop_layers(network, settings.drop_layers, known, say)
    if settings.drop_heads:
        heads = drop_heads(network, settings.drop_heads, known, say)
    if settings.sparsity:
        say("setting weights to zero")
        masks = prune_weights(network, settings.sparsity)
    if settings.epochs:
        is_other = settings.student is not None
        own = texts.examples(finished) if is_other else examples
        losses = distil(
            Reader(teacher, source.task, examples),
            Reader(finished.network, finished.task, own),
            settings,
            masks,
            say,
            trains_head=is_other,
        )
    records = len(examples) if settings.epochs else known.records
    return finished, Done(
        settings=settings,
        layers=layers,
        heads=heads,
        losses=losses,
        texts=texts.words,
        records=records,
        promise=texts.promise,
    )


def _describe(
    source: Finished,
    finished: Finished,
    done: Done,
    rows: Sequence[CompressedRow],
    scored: PublicTest | None,
    folder: Path,
) -> None:
    """Writes the cards, and `compress.json` with the same facts for programs."""
    own = own_card(source)
    form, metric = root_form(finished), source.task.primary_metric
    card = compressed_card(source, finished, form, done, rows, scored)
    (folder / "README.md").write_text(card, encoding="utf-8")
    bars = [_bar(row, metric) for row in rows]
    (folder / PAGE).write_text(card_page(card, bars), encoding="utf-8")
    if own is not None:  # a form that is exported from this folder copies the card again
        added = compressed_section(rows, metric, scored, done)
        inside = folder / ADAPTER / "README.md"
        inside.write_text(own.replace("\n## ", f"\n{added}\n## ", 1), encoding="utf-8")
    made_of = read_released(folder / ADAPTER).compressed
    assert made_of is not None  # `write_folder` states it
    document = {
        "version": 1,
        "form": form,
        "steps": steps(done),
        "dropped_layers": list(done.layers),
        "dropped_heads": [list(gone) for gone in done.heads],
        "settings": asdict(done.settings),
        "losses": list(done.losses),
        "public_texts": done.texts,
        "records": done.records,
        "epsilon": why_epsilon_stays(done),
        "made_of": asdict(made_of),
        "metric": metric,
        "scored_on": None if scored is None else scored.words,
        "threads": torch.get_num_threads(),
        "models": [asdict(row) for row in rows],
    }
    (folder / FACTS).write_text(json.dumps(document, indent=2), encoding="utf-8")


def _bar(row: CompressedRow, metric: str) -> SizeBar:
    figures = [f"{row.bytes / 1e6:.1f} MB"]
    if row.score is not None:
        figures.append(f"{metric} {row.score:.3f}")
    figures.append(f"{row.milliseconds:.1f} ms")
    return SizeBar(row.model, row.bytes, " · ".join(figures))
