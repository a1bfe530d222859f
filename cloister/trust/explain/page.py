"""Writes the page of explanations: heat maps, their faithfulness, and edits that change answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from cloister.report_page import AGAINST, FOR, heading, heat, page, paragraph, table
from cloister.trust.explain.explained import Answer, Explained
from cloister.trust.explain.summary import MethodScore, Word

# Most edits of one input that the page shows; the JSON has all of them.
MOST_SHOWN = 8
NAMES: Mapping[str, str] = {
    "integrated-gradients": "Integrated gradients",
    "occlusion": "Occlusion",
    "attention-rollout": "Attention rollout (an illustration: it does not know the answer)",
}


def explanation_page(
    title: str,
    about: str,
    private: str | None,
    explained: Sequence[Explained],
    scores: Sequence[MethodScore],
    words: Mapping[str, Sequence[Word]],
) -> str:
    """Returns the page of explanations as HTML.

    Args:
        title: The page's title.
        about: The model, the inputs and the seed, in a sentence.
        private: The owner of the quoted private records, in words; None: none are known.
        explained: The inputs with their explanations.
        scores: The scores of the methods.
        words: By kind of answer, the words with the largest contributions.
    """
    body = [paragraph(about)]
    if private is not None:
        quoted = f"This page quotes {private}. Keep it where these records are."
        body.append(paragraph(quoted, "loud"))
    body.append(
        f'<p class="soft"><span style="background:rgba({FOR},.5)">Blue</span> supports the '
        f'answer, <span style="background:rgba({AGAINST},.5)">vermilion, dotted</span> opposes it; '
        "full colour is the largest value of a row. An explanation shows what this model used, not "
        "what is true.</p>"
    )
    body += _worth(scores)
    if len(explained) > 1 and any(words.values()):
        body.append(heading("Words with the largest contributions, over all inputs"))
        body += [_words(group, each) for group, each in words.items() if each]
    body.append(heading("Input by input" if len(explained) > 1 else "The input"))
    body += [_card(number, one) for number, one in enumerate(explained, 1)]
    return page(title, body)


def _worth(scores: Sequence[MethodScore]) -> list[str]:
    if not scores:
        return []
    rows = [
        (
            NAMES[one.method].partition(" (")[0],
            str(one.answers),
            f"{one.deletion:.3f} ({one.random_deletion:.3f})",
            f"{one.insertion:.3f} ({one.random_insertion:.3f})",
            gain_text(one),
            "–" if one.worst_gap is None else f"{one.worst_gap:.1%}",
        )
        for one in scores
    ]
    columns = ["method", "answers", "deletion (random)", "insertion (random)"]
    columns += ["gain over random, 95 %", "largest gap"]
    return [
        heading("How far to trust each method"),
        table(columns, rows, 5),
        paragraph(
            "Deletion blanks words, the most important first: the sooner the answer's probability "
            "falls, the smaller the area. Insertion puts them back: a larger area is better. If a "
            "method's gain is not above 0, its order is no better than a random one. The gap is "
            "the part of the difference to a blank input that integrated gradients do not explain.",
            "soft",
        ),
    ]


def gain_text(one: MethodScore) -> str:
    """Returns a method's gain with its interval, which a single answer does not have."""
    if one.answers < 2:
        return f"{one.gain.value:+.3f}"
    return f"{one.gain.value:+.3f} ({one.gain.low:+.3f} to {one.gain.high:+.3f})"


def _words(group: str, words: Sequence[Word]) -> str:
    largest = max(abs(one.value) for one in words)
    width, step, middle = 680, 22, 350
    bars = []
    for row, one in enumerate(words):
        size = 200 * abs(one.value) / largest
        left = middle if one.value >= 0 else middle - size
        colour, y = FOR if one.value >= 0 else AGAINST, row * step
        bars.append(
            f'<text x="140" y="{y + 15}" text-anchor="end">{escape(one.word[:18])}</text>'
            f'<rect x="{left:.1f}" y="{y + 4}" width="{size:.1f}" height="14" '
            f'fill="rgb({colour})"/>'
            f'<text class="soft" x="{middle + 210}" y="{y + 15}">{one.value:+.2f} × {one.count}'
            "</text>"
        )
    height = step * len(words) + 4
    name = escape(f"words for {group}")
    return (
        f'<div class="card"><h3>{escape(group)}</h3><svg viewBox="0 0 {width} {height}" '
        f'width="{width}" role="img" aria-label="{name}">{"".join(bars)}</svg>'
        '<p class="soft">Mean contribution × occurrences in inputs with this answer.</p></div>'
    )


def _card(number: int, one: Explained) -> str:
    parts = [f"<h3>{number}. {escape(one.said)}</h3>"]
    if one.is_cut:
        parts.append(
            paragraph("The input is longer than the model reads: its end was cut.", "soft")
        )
    if not one.answers:
        parts += [paragraph(one.shown), paragraph("There is no answer to explain.", "soft")]
    for answer in one.answers:
        parts += _answer(answer, is_whole=answer.answer == one.said)
    if one.edits is not None:
        tried = ", ".join(f"{n} × {kind}" for kind, n in one.edits.tried.items() if n)
        flips = one.edits.flips
        parts.append(f"<h3>Edits that change the answer: {len(flips)}</h3>")
        parts.append(paragraph(f"Tried: {tried or 'none'}.", "soft"))
        if flips:
            rows = [(edit.kind, edit.what, new) for edit, new in flips[:MOST_SHOWN]]
            parts.append(table(("edit", "left out, or the new text", "answer then"), rows))
    return f'<div class="card">{"".join(parts)}</div>'


def _answer(answer: Answer, *, is_whole: bool) -> list[str]:
    """Returns an answer's heat maps; `is_whole` avoids a repetition of the input's only answer."""
    opening = "" if is_whole else f"{answer.answer}: "
    said = f"{opening}{answer.share:.3f} of 1; {answer.figure_name} {answer.figure:+.2f}"
    parts = [paragraph(f"{said}, of the blank input {answer.blank:+.2f}", "soft")]
    for name, method in answer.methods.items():
        values = method.attribution.values.tolist()
        gain = method.faithfulness.gain
        parts.append(
            f'<span class="label">{escape(NAMES[name])}</span>'
            f'<span class="soft">gain over random {gain:+.3f}</span>'
            + heat(answer.pieces, answer.after, values)
        )
    parts += [
        paragraph(f"{NAMES[name].partition(' (')[0]}: not available, {why}.", "soft")
        for name, why in answer.unavailable.items()
    ]
    return parts
