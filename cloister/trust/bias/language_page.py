"""Writes the results of sentence pairs, BBQ and harmful prompts, for a page and a card."""

from __future__ import annotations

from cloister.report_page import heading, paragraph, table
from cloister.trust.attack.page import figure
from cloister.trust.bias.language import LanguageFound
from cloister.trust.bias.measured import FEW
from cloister.trust.charts import whiskers

_CONDITIONS = {"ambig": "ambiguous", "disambig": "evidence given"}


def language_parts(found: LanguageFound) -> list[str]:
    """Returns the page's parts about the tests of a chat model, as HTML."""
    body: list[str] = []
    if found.pairs:
        body.append(heading("Which of two sentences is likelier"))
        caption = "share of pairs whose stereotype is likelier (0.5: no preference), 95 %"
        body.append(whiskers(list(found.pairs.items()), caption, ends=(0.0, 1.0)))
        text = (
            "The sentences of a CrowS-Pairs pair differ in the group that they are about. "
            "Likelihoods of whole sentences are compared, so a rare name has an influence too; "
            "some pairs are badly built (Blodgett et al. 2021)."
        )
        body.append(paragraph(text, "soft"))
    if found.bbq:
        body += _bbq(found)
    if found.harm:
        body += _harm(found)
    return body


def _bbq(found: LanguageFound) -> list[str]:
    left_out = found.tests.bbq_left_out
    scores = [
        (f"{category}, {_CONDITIONS[condition]}", one.bias)
        for category, each in found.bbq.items()
        for condition, one in each.items()
        if one.bias is not None and one.questions >= FEW
    ]
    rows = [
        (
            category,
            _CONDITIONS[condition],
            str(one.questions),
            figure(one.accuracy),
            figure(one.unknown),
            figure(one.bias),
        )
        for category, each in found.bbq.items()
        for condition, one in each.items()
    ]
    columns = ["category", "context", "questions", "right", "says unknown", "bias score"]
    return [
        heading("Whom it names without evidence"),
        paragraph(
            f"Questions of {found.tests.bbq_source}, in the form of BBQ (Parrish et al. 2022). "
            "Bias is 0 without a preference, 1 if every answer that names a person follows the "
            "stereotype, and -1 if every such answer contradicts it; with ambiguous contexts it is "
            "multiplied by the share of wrong answers."
            + (f" {left_out:,} rows without one stereotyped answer are left out." * bool(left_out))
        ),
        whiskers(
            scores,
            f"bias score, 95 % interval, where there are {FEW} questions or more",
            zero=True,
            ends=(-1.0, 1.0),
        ),
        table(columns, rows, 4),
        paragraph(
            "A model that answers at random has about a third correct and a bias near 0: read the "
            "score together with the share of correct answers to questions with evidence.",
            "soft",
        ),
    ]


def _harm(found: LanguageFound) -> list[str]:
    rows = [
        (model, kind, str(one.prompts), figure(one.refused), figure(one.harmful))
        for model, each in found.harm.items()
        for kind, one in each.items()
    ]
    columns = ["model", "prompts", "number", "refuses", "harmful"]
    return [
        heading("What it answers to harmful prompts"),
        paragraph(
            f"Prompts of {found.tests.harm_source}, answered by greedy decoding. Harmful by "
            f"{found.judged_by}; a refusal begins within the first words of a reply."
        ),
        table(columns, rows, 3),
        paragraph(
            "Lists of terms and classifiers make mistakes: they miss politely written harm, and a "
            "reply that makes no sense counts as neither a refusal nor harmful. bias.json has each "
            "reply: read some before you rely on these shares.",
            "soft",
        ),
    ]


def language_words(found: LanguageFound) -> list[str]:
    """Returns the lines for a model's card."""
    lines = []
    if found.pairs:
        lines.append("Share of sentence pairs whose stereotype is likelier (0.5: no preference):")
        lines += [f"- {kind}: {figure(one)}" for kind, one in found.pairs.items()]
    if found.bbq:
        lines.append(f"BBQ's bias score (0: no preference) on {found.tests.bbq_source}:")
        lines += [
            f"- {_CONDITIONS[condition]}: {figure(one.bias)}, right {figure(one.accuracy)}"
            for condition, one in found.bbq["all"].items()
        ]
    if found.harm:
        lines.append(f"Replies to {found.tests.harm_source}, judged by {found.judged_by}:")
        lines += [
            f"- {model}: {figure(each['all'].harmful)} harmful, "
            f"{figure(each['all'].refused)} refuse"
            for model, each in found.harm.items()
        ]
    return lines
