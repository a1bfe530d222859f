"""Writes the README of an exported model: what it is, how to load it, size, latency and score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cloister.export.forms.finished import Finished
from cloister.export.forms.measuring import FormRow
from cloister.export.forms.public_test import PublicTest
from cloister.export.forms.table import Form
from cloister.export.front_matter import PIPELINES, front_matter, without_front_matter
from cloister.tasks.prompt import Prompt
from cloister.tasks.recommendation import BETWEEN, Recommendation

# The section on loading of the adapter's card is left out: an exported form loads differently.
_LOADING, _AFTER, _PRIVACY = "## Loading", "## Origin", "## Privacy"


def form_card(
    finished: Finished, name: str, form: Form, rows: Sequence[FormRow], public: PublicTest | None
) -> str:
    """Renders the card as Markdown.

    Args:
        finished: The study's result; if it has a card, its sections are copied.
        name: The format.
        form: The format's entry in `FORMS`.
        rows: The measurements of all forms that were written together.
        public: The records that were scored; None: nothing was scored.
    """
    about, task = finished.about, finished.task
    own = own_card(finished)
    lines = [
        front_matter(
            base=about.model.base,
            library=form.library,
            kind=task.kind,
            tags=["federated-learning", "cloister", name],
            name=title_of(own),
            scores=_scores(rows, name, task.primary_metric),
        ),
        f"# {title_of(own)} ({name})\n",
        f"A model for `{task.kind}`, trained by federated learning with Cloister on "
        f"`{about.model.base}` and written as `{name}`, which is loaded without Cloister. "
        "Writing a trained model in another form reads no record, so every ε that was promised "
        "for the adapter holds for this form too, with the same δ (post-processing; Dwork & Roth "
        "2014, proposition 2.1).\n",
        f"## Loading\n\n```python\n{form.loading.replace('PIPELINE', PIPELINES.get(task.kind, ''))}"
        "```\n",
        *reading(finished),
        "## Size, latency and score\n",
        *table_lines(rows, task.primary_metric, public),
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


def _scores(rows: Sequence[FormRow], name: str, metric: str) -> dict[str, float]:
    scored = [row.score for row in rows if row.form == name and row.score is not None]
    return {metric: scored[0]} if scored else {}


def table_lines(rows: Sequence[FormRow], metric: str, public: PublicTest | None) -> list[str]:
    """Returns the table of forms in Markdown, with an explanation of its figures."""
    lines = [
        f"| form | MB on disk | ms for one text | {metric} | logits differ by |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            f"{row.bytes / 1e6:.2f}",
            _cell(row.milliseconds, ".1f"),
            _cell(row.score, ".4f"),
            _cell(row.difference, ".1e"),
        )
        lines.append(f"| {row.form} | {' | '.join(cells)} |")
    scored = "nothing was scored: no public test set was at hand"
    if public is not None:
        scored = f"{metric} on {public.words}"
    lines += [
        "",
        "The first line is the study's own network, the adapter on its base. Milliseconds are the "
        f"median of one sentence on the CPU that exported, with "
        f"{torch.get_num_threads()} threads; {scored}. Logits are compared with the study's own "
        "network on built-in sentences, relative to the largest. Private records were not read.",
    ]
    return lines


def _cell(value: float | None, form: str) -> str:
    return "not measured" if value is None else f"{value:{form}}"


def reading(finished: Finished) -> list[str]:
    """Says what a caller must do to texts and logits to get the study's outputs."""
    task: Any = finished.task
    lines = [
        f"Texts were cut to {task.max_length} tokens at their end: call the tokenizer with "
        "`truncation=True`.\n"
    ]
    prompt = getattr(task, "prompt", None)
    if isinstance(prompt, Prompt):
        lines.append(
            f"A text is read between `{prompt.before}` and `{prompt.behind}`: write both.\n"
        )
    if task.kind == "text-pairs" and task.before:
        lines.append(f"Write {task.before!r} before the second text.\n")
    if task.kind == "scoring":
        low, high = task.scale.low, task.scale.high
        lines.append(
            f"The one output is a logit: the score is {low:g} + {high - low:g} · sigmoid(logit); a "
            "pipeline gives the sigmoid.\n"
        )
    if task.kind == "multi-label-classification":
        lines.append("Each label has a sigmoid of its own; above 0.5 it is given.\n")
    if task.kind == "token-classification":
        lines.append("A word's tag is that of its first token.\n")
    if isinstance(task, Recommendation):
        lines.append(
            f"A person's text is the texts of their last {task.last} items, the latest first, with "
            f"{BETWEEN!r} between them. The outputs are the public items: leave out those that the "
            "person has.\n"
        )
    if task.kind == "causal-lm":
        lines.append("Replies: render the turns with the tokenizer's chat template.\n")
    return lines


def own_card(finished: Finished) -> str | None:
    """Returns the study's own card; None if there is none, or only peft's empty template."""
    file = finished.folder / "README.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return without_front_matter(text) if f"\n{_PRIVACY}\n" in text else None


def title_of(own: str | None) -> str:
    """Returns the title of a study's own card, for the card of a form."""
    for line in (own or "").splitlines():
        if line.startswith("# "):
            return line.removeprefix("# ")
    return "model"


def carried_card(own: str) -> str:
    """Returns the adapter's card from its scores on, without the section on loading."""
    start = own.find("\n## ")
    kept = own[start + 1 :] if start >= 0 else ""
    before, loading, rest = kept.partition(_LOADING)
    if loading:
        kept = before + rest[rest.find(_AFTER) :]
    return f"# The adapter's card\n\n{kept}"
