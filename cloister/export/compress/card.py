"""Writes the README of a compressed model: the steps, why ε is unchanged, and the loss of score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cloister.export.compress.folder import ADAPTER, BASE_ALONE
from cloister.export.compress.measured import CompressedRow
from cloister.export.compress.settings import Compression
from cloister.export.forms.card import carried_card, own_card, reading, title_of
from cloister.export.forms.finished import Finished
from cloister.export.forms.public_test import PublicTest
from cloister.export.forms.table import FORMS
from cloister.export.front_matter import PIPELINES, front_matter

_BASE_ALONE = """\
from safetensors.torch import load_file
from transformers import AutoModel

base, head = AutoModel.from_pretrained("."), load_file("adapter/head.safetensors")
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """The record of a compression, from which its card is written.

    Attributes:
        settings: The settings of the compression.
        layers: Numbers of the dropped layers, from 0, in the order in which they were dropped.
        heads: For each layer that was left, the numbers of its dropped groups of heads, from 0.
        losses: The distillation's mean loss in each epoch.
        texts: Description of the public texts.
        records: Number of public texts that layers and heads were chosen by, or that the student
            learnt from.
        promise: Of synthetic texts: the promise to the sites whose model wrote them; empty: the
            texts are not synthetic.
    """

    settings: Compression
    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    losses: tuple[float, ...]
    texts: str
    records: int
    promise: str = ""


def compressed_card(
    source: Finished,
    finished: Finished,
    form: str,
    done: Done,
    rows: Sequence[CompressedRow],
    public: PublicTest | None,
) -> str:
    """Returns the compressed model's card as Markdown."""
    task, own = source.task, own_card(source)
    metric = task.primary_metric
    after = rows[-1].score
    loading = _BASE_ALONE
    library = "transformers"
    if form != BASE_ALONE:
        loading = FORMS[form].loading.replace("PIPELINE", PIPELINES.get(task.kind, ""))
        library = FORMS[form].library
    lines = [
        front_matter(
            base=finished.about.model.base,
            library=library,
            kind=task.kind,
            tags=["federated-learning", "cloister", "compressed"],
            name=title_of(own),
            scores={} if after is None else {metric: after},
        ),
        f"# {title_of(own)} (compressed)\n",
        f"A model for `{task.kind}`, trained by federated learning with Cloister on "
        f"`{source.about.model.base}` and made smaller afterwards.\n",
        "## What was done\n",
        *[f"- {line}" for line in steps(done)],
        "",
        why_epsilon_stays(done) + "\n",
        f"## Loading\n\n```python\n{loading}```\n",
        f"With Cloister: `cloister predict FOLDER --text …`, and `serve`, `evaluate`, `model "
        f"export` likewise; `{ADAPTER}/` is for it alone.\n",
        *reading(finished),
        "## Before and after\n",
        *table_lines(rows, metric, public, done),
        "",
    ]
    if own is not None:
        lines.append(carried_card(own))
    else:
        lines.append(
            "## Not known\n\nThe adapter's folder had no card, so this card states no scores, ε or "
            "sites: ask the people who ran the study for the card of its run.\n"
        )
    return "\n".join(lines)


def why_epsilon_stays(done: Done) -> str:
    """Returns the paragraph that explains why compression leaves every promised ε unchanged."""
    stays = (
        "No record of a site entered the computation: the result is a function of the trained "
        f"model, which the sites had released, and of public texts ({done.texts}). So every ε that "
        "was promised for the trained model also holds for this one, with the same δ and unit, "
        "and nothing more is spent (post-processing; Dwork & Roth 2014, proposition 2.1). ε does "
        "not become smaller either. "
    )
    if done.promise:
        return stays + (
            f"The texts are synthetic, and were promised {done.promise}. If another study wrote "
            "them, its sites' promise holds beside this model's, and for whoever is in the records "
            "of both the two ε add up."
        )
    return stays + (
        "This holds only if the texts are public: if they are records of persons, no ε bounds what "
        "the model shows of them."
    )


def steps(done: Done) -> list[str]:
    """Describes the steps of the compression, one phrase for each."""
    settings, found = done.settings, []
    chosen = f"on {done.records:,} public texts ({done.texts})"
    if settings.student is not None:
        found.append(f"another base, `{settings.student}`, took the trained model's place")
    if done.layers:
        numbers = ", ".join(str(layer) for layer in sorted(done.layers))
        found.append(
            f"layers {numbers} (counted from 0) dropped: each time the layer without which the "
            f"outputs changed least {chosen} (compare ShortGPT, arXiv:2403.03853)"
        )
    if done.heads:
        each = "; ".join(
            f"layer {layer}: {', '.join(map(str, gone))}" for layer, gone in enumerate(done.heads)
        )
        found.append(
            f"{settings.drop_heads} groups of attention heads dropped from each layer, those "
            f"without which the outputs changed least {chosen} (compare arXiv:1905.10650): {each}"
        )
    if settings.sparsity:
        found.append(
            f"{settings.sparsity:.0%} of each weight matrix of the layers set to zero, those with "
            "the smallest absolute values (arXiv:1506.02626): a dense runtime is not faster, and "
            "the file is smaller only when it is compressed"
        )
    if done.losses:
        found.append(
            f"distilled for {settings.epochs} epochs from the trained model's outputs {chosen}, "
            f"temperature {settings.temperature:g} (arXiv:1503.02531): loss {done.losses[0]:.4f} "
            f"in the first epoch, {done.losses[-1]:.4f} in the last; embeddings were not trained"
        )
    return found


def table_lines(
    rows: Sequence[CompressedRow], metric: str, public: PublicTest | None, done: Done
) -> list[str]:
    """Returns the table of measurements as Markdown, and a paragraph that explains its figures."""
    lines = [
        f"| model | MB | MB as .gz | million numbers | zeros | ms for one text | {metric} | "
        "nats from the trained |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        zipped = "not measured" if row.zipped is None else f"{row.zipped / 1e6:.2f}"
        scored = "not measured" if row.score is None else f"{row.score:.4f}"
        lines.append(
            f"| {row.model} | {row.bytes / 1e6:.2f} | {zipped} | {row.parameters / 1e6:.2f} | "
            f"{row.zeros:.1%} | {row.milliseconds:.1f} | {scored} | {row.distance:.4f} |"
        )
    scored = "nothing was scored: no public test set was at hand"
    if public is not None:
        scored = f"{metric} on {public.words}"
    return [
        *lines,
        "",
        "MB are base and head in float32; zeros are of the base. Milliseconds are the "
        f"median of one sentence on the CPU that compressed, with {torch.get_num_threads()} "
        f"threads; {scored}. The distance is the mean Kullback-Leibler divergence from the trained "
        f"model's outputs on the public texts{_learnt(done)}.",
    ]


def compressed_section(
    rows: Sequence[CompressedRow], metric: str, public: PublicTest | None, done: Done
) -> str:
    """Returns the section that precedes the scores of the trained model on the copied card."""
    return "\n".join(
        [
            "## Compressed\n",
            "The figures below are the trained model's. This one was made smaller afterwards:\n",
            *[f"- {line}" for line in steps(done)],
            "",
            why_epsilon_stays(done) + "\n",
            *table_lines(rows, metric, public, done),
            "",
        ]
    )


def _learnt(done: Done) -> str:
    return ", from which the student learnt" if done.losses else ""
