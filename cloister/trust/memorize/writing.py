"""Measures what a finished model memorized; writes JSON and a page."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.data.canaries import Canaries, read_canaries
from cloister.data.load import load
from cloister.data.records import ChatRecord, Record, TextRecord
from cloister.data.source import released_as
from cloister.errors import UsageError
from cloister.export.forms.public_test import public_records
from cloister.models.adapters_off import adapters_off
from cloister.names import counted
from cloister.recipe import Recipe
from cloister.recipe.private_file import training_records
from cloister.serving.model import Model, about_adapter
from cloister.trust.memorize.extraction import Continuation, Continued, attempts, continued
from cloister.trust.memorize.measured import (
    CanariesFound,
    ExtractionRow,
    Reproduced,
    extraction_row,
    measure_canaries,
)
from cloister.trust.memorize.page import memorization_page
from cloister.trust.memorize.promise import promise_of, promise_of_canary
from cloister.trust.opening import Opened, open_run, recipe_of
from cloister.trust.places import KnownRecords, check_stays, inputs_of, stores_of
from cloister.trust.writing import PAGE, check_free, write_report

JSON = "memorization.json"
# Other numbers among which a secret is ranked: they show exposures up to 10 bits.
OTHERS = 1000
# Most records that are continued: a small model takes about a second for each.
MOST_RECORDS = 50
# The number k: shorter ends are often everyday words; the literature uses 50, with longer texts.
TOKENS = 16
# Most private replies that a page quotes.
QUOTED = 5
# Most characters of a prompt's end that a page quotes.
SHOWN = 200
KINDS = {"causal-lm": "messages", "sequence-classification": "text"}


@dataclass(frozen=True, kw_only=True)
class MemorizationReport:
    """A written report on memorization.

    Attributes:
        folder: The folder with `index.html` and `memorization.json`.
        document: The content of the JSON file.
        canaries: The figures of canaries by model; empty: no canaries were given.
        extraction: The figures by model and kind of record; empty: no records were given.
        private: The private records that it quotes, in words; None: no known ones.
    """

    folder: Path
    document: Mapping[str, Any]
    canaries: Mapping[str, CanariesFound]
    extraction: tuple[ExtractionRow, ...]
    private: str | None


def measure_memorization(
    run: str | Path,
    out: str | Path,
    *,
    canaries: str | Path | None = None,
    records: str | Path | None = None,
    test: str | Path | None = None,
    against: str | Path | None = None,
    site: str | Path | None = None,
    others: int = OTHERS,
    tokens: int = TOKENS,
    samples: int = 0,
    most: int = MOST_RECORDS,
    seed: int = 0,
    base: str | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> MemorizationReport:
    """Measures what a finished model memorized, in comparison with what its ε allows.

    Args:
        run: A finished run's folder, or an adapter's.
        out: A new folder for `index.html` and `memorization.json`.
        canaries: The secrets' file of `cloister data plant`, from which the study's records came.
        records: For a chat model, the records of its training, whose replies it continues.
        test: Public records that it continues as a control; None: the run's public test set.
        against: Another run of the same task, such as one without privacy.
        site: A site's file; `records` may be its private records.
        others: Number of other numbers among which each secret is ranked.
        tokens: Number of last tokens of a reply that the model must produce.
        samples: Number of samples for each reply, in addition to greedy decoding.
        most: Most records that are continued; if there are more, the seed draws them.
        seed: The seed of everything that is drawn.
        base: The base's folder or hub id on this machine; None: the one that the adapter names.
        on_stage: Is called with the name of each stage; None: it is not called.

    Returns:
        The folder and its content, with 95 % intervals.

    Raises:
        UsageError: The task or an option does not apply, the run's training file has none of the
            planted canaries, or the folder exists already.
        RefusedError: `records` are private records and `out` is not below their folder, or `test`
            holds private records.
        BadFileError: The adapter is missing, or a file cannot be read or written.
        ModelFileError: The base is missing, or is not the one that was trained.

    Guarantees:
        A report on private records that this machine knows is only written below the folder that
        holds them, because it quotes them and has true counts, which no ledger charges. The report
        is complete or does not exist.
    """
    place, target = Path(run), Path(out)
    check_free(target)
    if canaries is None and records is None:
        raise UsageError("nothing to measure; give --canaries, --records or both")
    if min(others, tokens, most) < 1 or samples < 0:
        raise UsageError("others, tokens and most are at least 1, samples at least 0")
    about = about_adapter(place)
    kind = about.task.kind
    folder, recipe = recipe_of(place)
    if records is not None and kind != "causal-lm":
        raise UsageError(
            f"--records: {run} is a model for {kind}, which writes no text; give only --canaries"
        )
    secrets = None if canaries is None else _secrets(Path(canaries), kind, recipe)
    store = None
    private: list[ChatRecord] = []
    if records is not None:
        read = load(
            str(records), "test", about.task.records, about.data, asker=released_as("--records")
        )
        private = _drawn([one for one in read if isinstance(one, ChatRecord)], most, seed)
        stores = stores_of(folder, recipe, None if site is None else Path(site))
        store = _whose(stores, private)
        if store is not None:
            check_stays(store, target)
    public = public_records(about, recipe, None if test is None else Path(test))
    say = on_stage or (lambda stage: None)
    say("loading the base model")
    models = {"model": open_run(place, base)}
    if against is not None:
        say("loading the other model")
        models[Path(str(against)).name or "the other"] = _other(Path(against), base, models)
    found: dict[str, CanariesFound] = {}
    if secrets is not None:
        for name, opened in models.items():
            say(f"{len(secrets.canaries)} canaries: {name}")
            promise = (
                None if opened.recipe is None else promise_of_canary(opened.recipe, secrets.copies)
            )
            found[name] = measure_canaries(opened.model, secrets, others, seed, promise)
    rows: list[ExtractionRow] = []
    quoted: list[Reproduced] = []
    if private:
        control = [] if public is None else [r for r in public.records if isinstance(r, ChatRecord)]
        sets = {"given": private, "public test": _drawn(control, most, seed)}
        rows, quoted = _extracted(models, sets, tokens, samples, seed, say)
    first = models["model"]
    promise = None if first.recipe is None else promise_of(first.recipe)
    words = None if store is None else store.words
    document = {
        "version": 1,
        "model": first.name,
        "task": first.kind,
        "seed": seed,
        "private": words,
        "promise": None if promise is None else promise.stated.to_json(),
        "canaries": {name: one.to_json() for name, one in found.items()},
        "extraction": [row.to_json() for row in rows],
    }
    title = f"What {first.name} memorized"
    tells = f"A model of {first.kind}, seed {seed}."
    stated = None if promise is None else promise.stated
    html = memorization_page(title, tells, found, stated, rows, quoted, words)
    write_report(target, {JSON: document, PAGE: html})
    return MemorizationReport(
        folder=target,
        document=document,
        canaries=found,
        extraction=tuple(rows),
        private=words,
    )


def _secrets(path: Path, kind: str, recipe: Recipe | None) -> Canaries:
    """Reads the canaries, which must fit the study's records and be in its training file."""
    secrets = read_canaries(path)
    if KINDS.get(kind) != secrets.kind:
        raise UsageError(
            f"--canaries {path}: the canaries are {secrets.kind} records, but this is a model for "
            f"{kind}; canaries fit sequence-classification and causal-lm"
        )
    trained = [] if recipe is None else training_records(recipe)
    if trained and secrets.planted:
        known = {_said(record) for record in trained}
        if not any(_said(one.record()) in known for one in secrets.planted):
            raise UsageError(
                f"--canaries {path}: the study's training file has none of the planted canaries; "
                "give those that were planted in it (cloister data plant)"
            )
    return secrets


def _said(record: Record) -> object:
    """Returns the text that identifies a record of these two kinds, without site and person."""
    if isinstance(record, ChatRecord):
        return record.text, tuple((turn.role, turn.content) for turn in record.messages)
    return (record.text, record.label) if isinstance(record, TextRecord) else None


def _drawn(records: Sequence[ChatRecord], most: int, seed: int) -> list[ChatRecord]:
    if len(records) <= most:
        return list(records)
    places = sorted(random.Random(seed).sample(range(len(records)), most))
    return [records[place] for place in places]


def _whose(stores: Sequence[KnownRecords], records: Sequence[Record]) -> KnownRecords | None:
    """Returns the private records that one of these belongs to; None: no known ones."""
    for store in stores:
        if any(inputs_of(record) & store.inputs for record in records):
            return store
    return None


def _other(against: Path, base: str | None, models: Mapping[str, Opened]) -> Opened:
    other = open_run(against, base)
    own = models["model"]
    if (other.kind, other.model.labels) != (own.kind, own.model.labels):
        raise UsageError(
            f"--against: a model for {other.kind} with other labels given; a model for {own.kind} "
            "with the same labels is needed"
        )
    return other


def _extracted(
    models: Mapping[str, Opened],
    sets: Mapping[str, list[ChatRecord]],
    tokens: int,
    samples: int,
    seed: int,
    say: Callable[[str], None],
) -> tuple[list[ExtractionRow], list[Reproduced]]:
    """Returns rows of each model and of the base without adapter, and quoted private replies."""
    rows, quoted = [], []
    for name, opened in models.items():
        model = opened.model
        asked = {words: attempts(model, each, tokens) for words, each in sets.items()}
        if not asked["given"]:
            raise UsageError(
                f"--tokens {tokens}: no reply of --records has this many tokens; give fewer"
            )
        passes = [name] if name != "model" else [name, "base without the adapter"]
        for who in passes:
            off = who != name
            if off and model.workspace.network.is_prompted:
                continue
            with adapters_off(model.workspace.network) if off else nullcontext():
                for words, each in asked.items():
                    if not each:
                        continue
                    say(f"{counted(len(each), 'record')}, {words}, continued: {who}")
                    done = continued(model, each, samples, seed)
                    rows.append(extraction_row(who, words, done, tokens, samples, seed))
                    if who == "model" and words == "given":
                        quoted = _quoted(model, each, done)
    return rows, quoted


def _quoted(
    model: Model, asked: Sequence[Continuation], done: Sequence[Continued]
) -> list[Reproduced]:
    decode = model.workspace.tokenizer.decode
    hits = [one for one, made in zip(asked, done, strict=True) if made.is_greedy]
    return [
        Reproduced(str(decode(list(one.given)))[-SHOWN:], str(decode(list(one.wanted))))
        for one in hits[:QUOTED]
    ]
