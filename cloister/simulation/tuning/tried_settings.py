"""Runs the trials of a search: a setting is suggested, simulated over seeds, scored, and kept.

Trial 1 is the recipe as it is, if the search includes its values, so that the winner is never worse
on the validation file than what the user had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from cloister.errors import (
    BadFileError,
    CloisterError,
    DivergedError,
    LedgerError,
    RecipeError,
    UsageError,
)
from cloister.files import bad_file
from cloister.recipe import Recipe
from cloister.server.early_stopping import LOWER_IS_BETTER
from cloister.server.run_directory import RunDirectory
from cloister.simulation.ledgers import carry_on
from cloister.simulation.study import prepare, workspace_of
from cloister.simulation.sweep import opened_run
from cloister.simulation.tuning.search import Search
from cloister.simulation.tuning.suggestions import suggest
from cloister.simulation.tuning.tuning_file import (
    TUNING_FILE,
    TriedSetting,
    TuningFile,
    check_same,
    read_tuning,
    write_tuning,
)


def metric_of(planned: Search) -> str:
    """Returns the name of the score by which settings are chosen: the task's first one.

    It loads data and base, so that what is wrong with them is found before a study is charged.

    Raises:
        CloisterError: The study is not possible.
    """
    return workspace_of(prepare(planned.base)).task.primary_metric


def open_search(folder: Path, planned: Search) -> TuningFile:
    """Makes a search's folder, or reads the trials of an existing one.

    Raises:
        UsageError: The folder holds something else, or another search.
        BadFileError: It cannot be read or written.
    """
    if folder.is_file():
        raise UsageError(f"{folder}: is a file; give a new folder as --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / TUNING_FILE).is_file():
            before = read_tuning(folder)
            check_same(folder, before, planned.declared, planned.searched)
            _check_trials(folder, before, planned)
            return before
        if any(folder.iterdir()):
            raise UsageError(f"{folder}: exists already, but is not a search; give another --out")
    except (OSError, ValueError) as error:
        raise bad_file(error, "written") from error
    begun = TuningFile(declared=planned.declared)
    write_tuning(folder, begun)
    return begun


def _check_trials(folder: Path, before: TuningFile, planned: Search) -> None:
    """Refuses fewer trials than were charged, of which the stated ε would then not be.

    Raises:
        UsageError: Fewer are asked than were begun.
    """
    begun = max([len(before.trials), *(_order(path)[0] for path in studies_in(folder))])
    if planned.budget is not None and planned.trials < begun:
        raise UsageError(
            f"--trials: {planned.trials} given, but {begun} were begun in {folder} and charged, "
            f"and ε is stated for all of them; give {begun} or more"
        )


def run_search(
    planned: Search,
    folder: Path,
    metric: str,
    run: Callable[[Recipe, RunDirectory, str], None],
    told: Callable[[TriedSetting], None] = lambda trial: None,
) -> TuningFile:
    """Runs all trials that are left.

    Args:
        planned: The search.
        folder: Its folder, from `open_search`.
        metric: The name of the score, on the validation and on the test file.
        run: Runs one study in its folder, or continues it; gets the trial's name.
        told: Gets each closed trial.

    Returns:
        All trials.

    Raises:
        CloisterError: The error that ended a study; the same command continues.
    """
    content = read_tuning(folder)
    smaller = metric in LOWER_IS_BETTER
    while len(content.trials) < planned.trials:
        number = len(content.trials) + 1
        setting = planned.setting_of_recipe() if number == 1 else None
        if setting is None:
            scored = [(trial.setting, trial.score) for trial in content.trials]
            setting = suggest(planned.searched, scored, planned.seed, smaller_is_better=smaller)
        _check_kept(planned, folder, content)
        trial = _run_trial(planned, folder, number, setting, metric, run)
        content = content.with_trial(trial)
        write_tuning(folder, content)
        told(trial)
    return content


def _run_trial(
    planned: Search,
    folder: Path,
    number: int,
    setting: dict[str, str],
    metric: str,
    run: Callable[[Recipe, RunDirectory, str], None],
) -> TriedSetting:
    first = planned.base.study.seed
    try:
        studies = [
            planned.study(setting, number, seed) for seed in range(first, first + planned.seeds)
        ]
    except RecipeError as error:  # two of its values contradict each other: nothing was charged
        return TriedSetting(number=number, setting=setting, why=error.problems[0])
    scores, tests = [], []
    for recipe in studies:
        name = _name(number, recipe.study.seed)
        place = opened_run(folder / name, recipe)
        if place is not None:
            if not place.recipe_file.is_file():
                place = RunDirectory.create(place.path, recipe)
            _carry_ledgers(planned, folder, place)
            try:
                run(recipe, place, f"trial {number} of {planned.trials}, seed {recipe.study.seed}")
            except DivergedError as error:  # its rounds stay charged
                return TriedSetting(number=number, setting=setting, why=f"it diverged ({error})")
            except CloisterError as error:
                error.add_note(f"in {place.path}; the same command continues the search")
                raise
        done = RunDirectory.reopen(folder / name)
        scores.append(score_of(done, "validation", metric))
        tests.append(score_of(done, "test", metric))
    if any(score is None or not math.isfinite(score) for score in scores):
        why = f"its {metric} on the validation file is not a number"
        return TriedSetting(number=number, setting=setting, tests=tuple(tests), why=why)
    known = tuple(score for score in scores if score is not None)
    return TriedSetting(number=number, setting=setting, scores=known, tests=tuple(tests))


def _check_kept(planned: Search, folder: Path, content: TuningFile) -> None:
    """Checks that each study that was charged is still there, since its ledgers say what it cost.

    Raises:
        BadFileError: One is missing, where the records are private.
    """
    if planned.budget is None:
        return
    first = planned.base.study.seed
    for trial in content.trials:
        for seed in range(first, first + planned.seeds) if trial.tests else ():
            place = folder / _name(trial.number, seed)
            if not (place / "recipe.toml").is_file():
                raise BadFileError(
                    f"{place}: missing, and its ledgers say what it cost; restore it, or give "
                    "another --out"
                )


def _carry_ledgers(planned: Search, folder: Path, place: RunDirectory) -> None:
    """Continues the ledgers of the study before, where the records are private.

    Raises:
        LedgerError: A site's ledger is missing there: a new one would forget what was charged.
    """
    if planned.budget is None:
        return
    earlier = [path for path in studies_in(folder) if _order(path) < _order(place.path)]
    if not earlier:
        return
    before = RunDirectory.reopen(earlier[-1])
    sites = {site for path in earlier for site in RunDirectory(path).ledgers()}
    lost = sorted(sites - before.ledgers().keys())
    if lost or not sites:
        raise LedgerError(
            f"{before.path / 'ledgers'}: no ledger of {', '.join(lost) or 'any site'}; what was "
            "spent is unknown: restore it, or give another --out"
        )
    carry_on(place, before)


def _name(number: int, seed: int) -> str:
    """Returns the name of a study's folder."""
    return f"trial-{number:03d}_seed-{seed}"


def studies_in(folder: Path) -> list[Path]:
    """Returns the folders of a search's studies, in the order in which they ran."""
    found = [path.parent for path in folder.glob("trial-*/recipe.toml")]
    return sorted(found, key=_order)


def _order(path: Path) -> tuple[int, int]:
    trial, _, seed = path.name.removeprefix("trial-").partition("_seed-")
    try:
        return int(trial), int(seed)
    except ValueError:
        raise BadFileError(f"{path}: not a folder of this search; move it elsewhere") from None


def score_of(run: RunDirectory, of: str, metric: str) -> float | None:
    """Returns a finished run's score of the released adapter; None: it has none.

    Args:
        run: The run's folder.
        of: `validation` or `test`.
        metric: The name of the score.
    """
    rows = [row for row in run.metrics() if row.get("validation")]
    if not rows:
        return None
    best = rows[-1]
    if run.recipe().federation.patience is not None:  # the best round is released, the first of it
        sign = -1 if metric in LOWER_IS_BETTER else 1
        known = [row for row in rows if row["validation"].get(metric) is not None]
        best = max(known, key=lambda row: sign * row["validation"][metric], default=best)
    found = best.get(of, {}).get(metric)
    return None if found is None else float(found)


def winner(trials: Sequence[TriedSetting], metric: str) -> TriedSetting | None:
    """Returns the trial with the best mean score, the first of equal ones; None: none was run."""
    sign = -1 if metric in LOWER_IS_BETTER else 1
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: sign * (trial.score or 0.0), default=None)
