"""Explains a finished model's answers, and writes JSON and a page of heat maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cloister.data.records import Message
from cloister.data.unlabelled import read_unlabelled
from cloister.errors import UsageError
from cloister.models.network import Network
from cloister.names import counted
from cloister.serving.inputs import Input
from cloister.serving.model import Model, about_adapter
from cloister.serving.predictions import Prediction
from cloister.tasks.scoring import Scoring
from cloister.trust.answers import answer_of
from cloister.trust.explain.edits import importance_order, probe_edits
from cloister.trust.explain.explained import Answer, Explained, MethodResult
from cloister.trust.explain.faithfulness import by_chance, faithfulness
from cloister.trust.explain.gradients import Attribution, integrated_gradients
from cloister.trust.explain.occlusion import occlusion
from cloister.trust.explain.page import explanation_page
from cloister.trust.explain.reading import ModelReading
from cloister.trust.explain.readings import readings_of
from cloister.trust.explain.rollout import attention_rollout
from cloister.trust.explain.summary import MethodScore, method_scores, telling_words
from cloister.trust.opening import open_run, recipe_of
from cloister.trust.places import check_stays, stores_of, whose
from cloister.trust.writing import PAGE, check_free, write_report

METHODS: Mapping[str, Callable[[Network, ModelReading], Attribution | str]] = {
    "integrated-gradients": lambda network, reading: integrated_gradients(reading),
    "occlusion": lambda network, reading: occlusion(reading),
    "attention-rollout": attention_rollout,
}
EDITS = "edits"
# Inputs of a file that are explained: a small encoder takes about a minute for them on one core.
MOST_INPUTS = 50
JSON = "explanations.json"


@dataclass(frozen=True, kw_only=True)
class Explanations:
    """A written report of explanations.

    Attributes:
        folder: The folder with `index.html` and `explanations.json`.
        document: The content of the JSON file.
        scores: The faithfulness of each method over all answers.
        private: The private records that it quotes, in words; None: no known ones.
    """

    folder: Path
    document: Mapping[str, Any]
    scores: tuple[MethodScore, ...]
    private: str | None


def explain_model(
    run: str | Path,
    out: str | Path,
    *,
    texts: Sequence[Input] = (),
    data: str | Path | None = None,
    methods: Sequence[str] | None = None,
    most: int = MOST_INPUTS,
    seed: int = 0,
    site: str | Path | None = None,
    base: str | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Explanations:
    """Explains why a finished model answers so, and how far each explanation can be trusted.

    Args:
        run: A finished run's folder, or an adapter's.
        out: A new folder for `index.html` and `explanations.json`.
        texts: Inputs as `Model.predict` takes them.
        data: A file of inputs in place of `texts`.
        methods: Names among `integrated-gradients`, `occlusion`, `attention-rollout` and `edits`;
            None: all.
        most: Most inputs of `data` that are explained; the first ones are taken.
        seed: The seed of the intervals and of the random orders, with which methods are compared.
        site: A site's file; the inputs may be its private records.
        base: The base's folder or hub id on this machine; None: the one that the adapter names.
        on_stage: Is called with the name of each stage; None: it is not called.

    Returns:
        The folder and its content.

    Raises:
        UsageError: The task or a method does not apply, no input or both kinds are given, or the
            folder exists already.
        RefusedError: The inputs are private records, and `out` is not below their folder.
        BadFileError: The adapter is missing, or a file cannot be read or written.
        ModelFileError: The base is missing, or is not the one that was trained.

    Guarantees:
        An explanation of private records that this machine knows (the run's training file, those
        of `site`) is only written below the folder that holds them. The report is complete or does
        not exist.
    """
    place, target = Path(run), Path(out)
    chosen = _chosen(methods)
    if bool(texts) == (data is not None):
        raise UsageError("give either texts (--text) or a file of inputs (--data)")
    check_free(target)
    about = about_adapter(place)
    if about.task.kind == "recommendation":
        # An item that is left out is new to the person and may itself be recommended, so leaving
        # it out does not show its influence.
        chosen = [name for name in chosen if name != EDITS]
        if not chosen:
            raise UsageError(
                "method: edits given, but for recommendation they show nothing, because an item "
                "that is left out may itself be recommended; choose occlusion"
            )
    file = None if data is None else Path(data)
    inputs: list[Any] = list(texts)
    if file is not None:
        inputs = list(read_unlabelled(file, about.task.records, about.data))
    folder, recipe = recipe_of(place)
    stores = stores_of(folder, recipe, None if site is None else Path(site))
    store = whose(stores, inputs, file, inputs[:most])
    if store is not None:
        check_stays(store, target)
    say = on_stage or (lambda stage: None)
    say("loading the base model")
    opened = open_run(place, base)
    taken = inputs[:most]
    explained = []
    for number, prediction in enumerate(opened.model.predict(taken), 1):
        say(f"input {number} of {len(taken)}")
        rng = np.random.default_rng((seed, number))
        explained.append(_explained(opened.model, taken[number - 1], prediction, chosen, rng))
    scores = method_scores(explained, seed)
    signed = next((n for n in chosen if n in ("integrated-gradients", "occlusion")), None)
    words = {} if signed is None else telling_words(explained, signed)
    private = None if store is None else store.words
    document = {
        "version": 1,
        "model": opened.name,
        "task": opened.kind,
        "inputs": len(inputs),
        "explained": len(explained),
        "seed": seed,
        "private": private,
        "methods": [asdict(one) for one in scores],
        "words": {group: [asdict(one) for one in each] for group, each in words.items()},
        "explanations": [one.to_json() for one in explained],
    }
    left = f"; the first {len(explained)} of {len(inputs)} inputs" if len(inputs) > most else ""
    title = f"Why {opened.name} answers so"
    tells = f"A model of {opened.kind}, {counted(len(explained), 'input')}, seed {seed}{left}."
    html = explanation_page(title, tells, private, explained, scores, words)
    write_report(target, {JSON: document, PAGE: html})
    return Explanations(folder=target, document=document, scores=tuple(scores), private=private)


def _chosen(methods: Sequence[str] | None) -> list[str]:
    known = [*METHODS, EDITS]
    chosen = known if methods is None else list(dict.fromkeys(methods))
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise UsageError(
            f"method: {', '.join(unknown) or 'none'} given; choose from {', '.join(known)}"
        )
    return [name for name in known if name in chosen]


def _explained(
    model: Model,
    given: Any,
    prediction: Prediction,
    chosen: Sequence[str],
    rng: np.random.Generator,
) -> Explained:
    task = model.workspace.task
    answers = tuple(
        _answer(model.workspace.network, reading, chosen, rng)
        for reading in readings_of(model, given, prediction)
        if reading.pieces
    )
    edits = None
    if EDITS in chosen:
        order = None
        if answers and "occlusion" in answers[0].methods:
            values = answers[0].methods["occlusion"].attribution.values
            order = importance_order(answers[0].pieces, values)
        edits = probe_edits(model, given, prediction, order)
    scale = task.scale if isinstance(task, Scoring) else None
    said = answer_of(prediction, scale)
    return Explained(shown(given), said, prediction.is_cut, answers, edits)


def _answer(
    network: Network, reading: ModelReading, chosen: Sequence[str], rng: np.random.Generator
) -> Answer:
    found, unavailable = {}, {}
    chance = by_chance(reading, rng)
    for name, method in METHODS.items():
        if name not in chosen:
            continue
        attribution = method(network, reading)
        if isinstance(attribution, str):
            unavailable[name] = attribution
        else:
            found[name] = MethodResult(
                attribution, faithfulness(reading, attribution.values, chance)
            )
    ends = reading.figures(torch.cat([reading.whole, ~reading.whole]))
    return Answer(
        answer=reading.answer,
        group=reading.group,
        figure_name=reading.name,
        figure=float(ends[0]),
        blank=float(ends[1]),
        share=float(reading.share(ends)[0]),
        pieces=tuple(piece.text for piece in reading.pieces),
        after=tuple(piece.after for piece in reading.pieces),
        methods=found,
        unavailable=unavailable,
    )


def shown(given: Any) -> str:
    """Returns an input as one text, for a page."""
    if isinstance(given, str):
        return given
    parts = []
    for one in given:
        if isinstance(one, Message):
            parts.append(f"{one.role}: {one.content}")
        else:
            parts.append(one if isinstance(one, str) else f"{one['role']}: {one['content']}")
    is_turns = bool(parts) and not all(isinstance(one, str) for one in given)
    return ("\n" if is_turns else " / " if len(parts) == 2 else " ").join(parts)
