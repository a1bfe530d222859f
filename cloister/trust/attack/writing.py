"""Scores a finished model on disturbed public texts; writes JSON, a page and lines for a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cloister.errors import UsageError
from cloister.export.forms.public_test import public_records
from cloister.recipe.private_file import refuse_private_texts
from cloister.serving.model import about_adapter
from cloister.trust.attack.disturbances import DISTURBANCES
from cloister.trust.attack.measured import INJECTION, AttackRow, measure, measure_suite
from cloister.trust.attack.page import attack_page, figure
from cloister.trust.attack.suites import read_suite
from cloister.trust.intervals import Interval
from cloister.trust.opening import open_run, recipe_of
from cloister.trust.outcomes import METRICS
from cloister.trust.writing import PAGE, check_free, write_report

JSON, WORDS = "attack.json", "words.txt"
# Records that are disturbed: an accuracy's interval then extends by about 0.04 to each side.
MOST_RECORDS = 500


@dataclass(frozen=True, kw_only=True)
class AttackReport:
    """A written robustness report.

    Attributes:
        folder: The folder with `index.html`, `attack.json` and `words.txt`.
        document: The content of the JSON file.
        rows: The rows of all disturbances and suites.
    """

    folder: Path
    document: Mapping[str, Any]
    rows: tuple[AttackRow, ...]


def attack_model(
    run: str | Path,
    out: str | Path,
    *,
    test: str | Path | None = None,
    disturbances: Sequence[str] | None = None,
    suites: Sequence[str | Path] = (),
    most: int = MOST_RECORDS,
    seed: int = 0,
    base: str | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> AttackReport:
    """Measures a finished model's score on public texts that are disturbed.

    Args:
        run: A finished run's folder, or an adapter's.
        out: A new folder for `index.html`, `attack.json` and `words.txt`.
        test: A file of public records; None: the run's public test set.
        disturbances: Names among typos, homoglyphs, full-width, synonyms, lower-case, upper-case,
            truncation, distractor, negation and prompt injection; None: all that apply.
        suites: Files of texts that are disturbed already (`trust.attack.suites`).
        most: Most records that are used; if there are more, the seed draws them.
        seed: The seed of drawn records, changes and intervals.
        base: The base's folder or hub id on this machine; None: the one that the adapter names.
        on_stage: Is called with the name of each stage; None: it is not called.

    Returns:
        The folder and its content. Accuracies have Wilson's interval; other scores and all
        differences have a bootstrap interval, paired over records. All are at 95 %.

    Raises:
        UsageError: The task is a plug-in's, a disturbance is unknown, there is no public test set,
            a suite's labels do not fit, or the folder exists already.
        RefusedError: `test` or a suite holds the study's private records.
        BadFileError: The adapter is missing, or a file cannot be read or written.
        ModelFileError: The base is missing, or is not the one that was trained.

    Guarantees:
        Files that are known to hold the study's private records are refused. For an adapter
        without its run they are not known, and up to a tenth of the texts may be the study's
        (`recipe.private_file.MOST_SHARED`). The report is complete or does not exist.
    """
    place, target = Path(run), Path(out)
    known = [*DISTURBANCES, INJECTION]
    names = known if disturbances is None else list(dict.fromkeys(disturbances))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"disturbance: {', '.join(unknown)} given; choose from {', '.join(known)}")
    files = [Path(one).name for one in suites]
    if twice := sorted({name for name in files if files.count(name) > 1}):
        raise UsageError(
            f"suite: two files have the name {twice[0]}, which names their rows; rename one"
        )
    check_free(target)
    _, recipe = recipe_of(place)
    public = public_records(about_adapter(place), recipe, None if test is None else Path(test))
    if public is None:
        raise UsageError(f"{run}: has no public test set; name a public file with --test")
    say = on_stage or (lambda stage: None)
    say("loading the base model")
    opened = open_run(place, base)
    task = opened.model.workspace.task
    read = {Path(one).name: read_suite(Path(one), task) for one in suites}
    if recipe is not None:
        for name, cases in read.items():
            for texts in ([one.record for one in cases], [one.clean for one in cases if one.clean]):
                refuse_private_texts(recipe, texts, f"--suite {name}")
    records = public.records
    if len(records) > most:
        drawn = np.random.default_rng(seed).choice(len(records), most, replace=False)
        records = [records[place] for place in sorted(drawn)]
    say(f"disturbing {len(records):,} records in {len(names)} ways")
    whole, rows = measure(opened.model, records, names, seed)
    groups: dict[str, Mapping[str, Interval]] = {}
    for name, cases in read.items():
        say(f"{len(cases):,} cases of {name}")
        row, groups[name] = measure_suite(opened.model, name, cases, seed)
        rows.append(row)
    metric = METRICS[opened.kind]
    source = f"{len(records):,} records of {public.words}"
    document = {
        "version": 1,
        "model": opened.name,
        "task": opened.kind,
        "metric": metric.name,
        "records": len(records),
        "source": public.words,
        "seed": seed,
        "undisturbed": None if whole is None else whole.to_json(),
        "disturbances": [row.to_json() for row in rows],
        "suites": {n: {g: i.to_json() for g, i in each.items()} for n, each in groups.items()},
    }
    title = f"What breaks {opened.name}"
    about = f"A model of {opened.kind} on {source}, seed {seed}."
    html = attack_page(title, about, metric, whole, rows, groups)
    words = _words(metric.name, source, whole, rows)
    write_report(target, {JSON: document, PAGE: html, WORDS: words})
    return AttackReport(folder=target, document=document, rows=tuple(rows))


def _words(metric: str, source: str, whole: Interval | None, rows: Sequence[AttackRow]) -> str:
    """Returns the report's lines for a card; `cloister model card --robustness` reads the file."""
    lines = [f"{metric} on {source}: {figure(whole)}, at 95 %. Under disturbances:"]
    lines += [
        f"- {row.name}: {figure(row.disturbed)} on {row.records} records, before "
        f"{figure(row.clean)}"
        for row in rows
        if row.disturbed is not None
    ]
    lines += [
        f"- {row.name}: {figure(row.flipped)} of the answers changed, as they should"
        for row in rows
        if row.is_reversing and row.flipped is not None
    ]
    return "\n".join(lines) + "\n"
