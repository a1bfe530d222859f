"""Tests a chat model for bias and harm, with pairs of sentences, BBQ and harmful prompts."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cloister.data.records import ChatRecord
from cloister.errors import UsageError
from cloister.models.adapters_off import adapters_off
from cloister.recipe import Recipe
from cloister.recipe.private_file import refuse_private_texts
from cloister.serving.model import Model
from cloister.trust.bias.bbq import BbqQuestion, BbqScore, bbq_scores, read_bbq
from cloister.trust.bias.crows import SentencePair, preferences, read_pairs
from cloister.trust.bias.harm import (
    BUILT_IN,
    HARMFUL,
    REFUSAL,
    HarmPrompt,
    HarmRates,
    by_model,
    by_terms,
    harm_rates,
    own_prompts,
    read_lists,
    read_prompts,
    replies,
)
from cloister.trust.bias.own_questions import own_questions
from cloister.trust.intervals import Interval
from cloister.trust.opening import open_run

# Most questions and prompts that are used: an answer of a small model takes a second.
MOST_QUESTIONS, MOST_PROMPTS = 500, 100
BASE = "base without the adapter"


@dataclass(frozen=True, kw_only=True)
class LanguageTests:
    """The tests of a chat model, which are read before a model is loaded.

    Attributes:
        pairs: CrowS-Pairs' sentences.
        bbq: BBQ's questions.
        bbq_source: The source of the questions, for the report.
        bbq_left_out: Number of rows without exactly one stereotyped answer.
        harm: Harmful prompts.
        harm_source: The source of the prompts, for the report.
        terms: Lists of harmful terms and of refusals.
        judge: A run whose labels judge replies; None: the list of terms.
        judge_labels: Those of its labels that mean harm.
    """

    pairs: Sequence[SentencePair] = ()
    bbq: Sequence[BbqQuestion] = ()
    bbq_source: str = ""
    bbq_left_out: int = 0
    harm: Sequence[HarmPrompt] = ()
    harm_source: str = ""
    terms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    judge: Path | None = None
    judge_labels: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pairs or self.bbq or self.harm)


@dataclass(frozen=True, kw_only=True)
class LanguageFound:
    """The figures of a chat model's tests.

    Attributes:
        pairs: By kind of bias, the share of pairs whose stereotype is more likely.
        bbq: BBQ's scores, by category and condition.
        harm: The rates by model and kind of prompt.
        replies: The reply to each prompt, by model.
        judged_by: The judge of harmful replies, in words.
        tests: The tests that gave the figures.
    """

    pairs: Mapping[str, Interval]
    bbq: Mapping[str, Mapping[str, BbqScore]]
    harm: Mapping[str, Mapping[str, HarmRates]]
    replies: Mapping[str, Sequence[str]]
    judged_by: str
    tests: LanguageTests

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as a JSON object."""
        return {
            "pairs": {kind: one.to_json() for kind, one in self.pairs.items()},
            "bbq": {
                "source": self.tests.bbq_source,
                "left_out": self.tests.bbq_left_out,
                "scores": {c: {k: asdict(s) for k, s in e.items()} for c, e in self.bbq.items()},
            },
            "harm": {
                "source": self.tests.harm_source,
                "judged_by": self.judged_by,
                "rates": {m: {k: asdict(r) for k, r in e.items()} for m, e in self.harm.items()},
                "replies": [
                    {**asdict(prompt), "replies": {m: each[at] for m, each in self.replies.items()}}
                    for at, prompt in enumerate(self.tests.harm)
                ],
            },
        }


def read_tests(
    recipe: Recipe | None,
    seed: int,
    *,
    pairs: Path | None = None,
    bbq: Path | None = None,
    harm: Path | None = None,
    harm_terms: Path | None = None,
    judge: Path | None = None,
    judge_labels: Sequence[str] = (),
) -> LanguageTests:
    """Reads the tests of a chat model, and refuses private texts.

    Args:
        recipe: The run's recipe; None: the adapter is alone.
        seed: The seed that draws questions and prompts, if there are more than are used.
        pairs: CrowS-Pairs' CSV.
        bbq: One of BBQ's JSONL files, or `built-in`.
        harm: A file of prompts, or `built-in`.
        harm_terms: TOML with the lists `harmful` and `refusal`; None: short built-in ones.
        judge: A run whose labels judge replies.
        judge_labels: Those of its labels that mean harm.

    Raises:
        DataError: A file cannot be read, or has another form.
        RefusedError: A file holds the study's private texts.
        UsageError: An option has no effect without another.
    """
    if harm is None and (harm_terms or judge or judge_labels):
        raise UsageError("--harm-terms, --judge and --judge-label judge replies to --harm; give it")
    if (judge is None) != (not judge_labels):
        raise UsageError(
            "--judge RUN and --judge-label LABEL (the label that means harm) need each other; give "
            "both"
        )
    sentences = [] if pairs is None else read_pairs(pairs)
    questions, left_out = _questions(bbq)
    prompts: list[HarmPrompt] = []
    if harm is not None:
        prompts = own_prompts() if str(harm) == BUILT_IN else read_prompts(harm)
    if recipe is not None:
        for option, texts in (
            ("--pairs", [one.more for one in sentences]),
            ("--pairs", [one.less for one in sentences]),
            ("--bbq", [one.context for one in questions]),
            ("--harm", [one.text for one in prompts]),
        ):
            refuse_private_texts(recipe, [ChatRecord((), text=text) for text in texts], option)
    return LanguageTests(
        pairs=sentences,
        bbq=_drawn(questions, MOST_QUESTIONS, seed),
        bbq_source=_source(bbq, len(questions), MOST_QUESTIONS),
        bbq_left_out=left_out,
        harm=_drawn(prompts, MOST_PROMPTS, seed),
        harm_source=_source(harm, len(prompts), MOST_PROMPTS),
        terms=read_lists(harm_terms),
        judge=judge,
        judge_labels=tuple(judge_labels),
    )


def _questions(bbq: Path | None) -> tuple[list[BbqQuestion], int]:
    if bbq is None:
        return [], 0
    return (own_questions(), 0) if str(bbq) == BUILT_IN else read_bbq(bbq)


def _drawn(given: Sequence[Any], most: int, seed: int) -> list[Any]:
    if len(given) <= most:
        return list(given)
    places = sorted(random.Random(seed).sample(range(len(given)), most))
    return [given[place] for place in places]


def _source(file: Path | None, count: int, most: int) -> str:
    if file is None:
        return ""
    name = "a small built-in sample" if str(file) == BUILT_IN else file.name
    return f"{name} ({min(count, most):,}{f' of {count:,}' if count > most else ''})"


def measure_language(
    model: Model,
    tests: LanguageTests,
    seed: int,
    others: Mapping[str, Model],
    say: Callable[[str], None],
) -> LanguageFound:
    """Runs the tests on a chat model.

    Args:
        model: The finished model.
        tests: The tests.
        seed: The seed of the intervals.
        others: Further models that reply to the harmful prompts, by name.
        say: Is called with the name of each stage.
    """
    liked: Mapping[str, Interval] = {}
    if tests.pairs:
        say(f"{len(tests.pairs):,} pairs of sentences")
        liked = preferences(model, list(tests.pairs))
    scores: Mapping[str, Mapping[str, BbqScore]] = {}
    if tests.bbq:
        say(f"{len(tests.bbq):,} questions of BBQ's form")
        scores = bbq_scores(model, tests.bbq, seed)  # type: ignore[assignment]
    harm: dict[str, Mapping[str, HarmRates]] = {}
    answers: dict[str, Sequence[str]] = {}
    judged_by = ""
    if tests.harm:
        judge, judged_by = by_terms(tests.terms[HARMFUL]), "a list of terms"
        if tests.judge is not None:
            judge = by_model(open_run(tests.judge).model, tests.judge_labels)
            judged_by = f"{tests.judge.name} ({', '.join(tests.judge_labels)})"
        refusal = tests.terms[REFUSAL]
        for name, one in {"model": model, **others}.items():
            say(f"{len(tests.harm):,} harmful prompts: {name}")
            answers[name] = replies(one, tests.harm)
        if not model.workspace.network.is_prompted:
            say(f"{len(tests.harm):,} harmful prompts: {BASE}")
            with adapters_off(model.workspace.network):
                answers[BASE] = replies(model, tests.harm)
        harm |= {n: harm_rates(tests.harm, said, judge, refusal) for n, said in answers.items()}
    return LanguageFound(
        pairs=liked, bbq=scores, harm=harm, replies=answers, judged_by=judged_by, tests=tests
    )
