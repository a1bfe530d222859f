"""Ends a simulation: writes adapter, card, plots and result."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloister.adapter.tensors import Adapter
from cloister.errors import UsageError
from cloister.evidence.began import read_began
from cloister.evidence.site_facts import SiteFacts, site_facts
from cloister.evidence.spending_series import SpendingSeries, series_of
from cloister.export.adapter_folder import export
from cloister.files import write_whole
from cloister.ledger.certificate_forms import statement
from cloister.ledger.ledger import Ledger
from cloister.ledger.replay import charged_rounds
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.models.state import write_adapter
from cloister.privacy.estimated_scores import evaluated_rounds
from cloister.server.class_plot import ClassScores
from cloister.server.coordinator import Coordinator, label_counts, majority
from cloister.server.ending import Ending, forgetting, released
from cloister.server.public_scores import mean_metrics
from cloister.server.report import SetScores
from cloister.server.run_directory import RunDirectory
from cloister.simulation.personal import site_models
from cloister.simulation.result import RunResult, SiteResult
from cloister.simulation.study import SimulatedStudy
from cloister.strategies.strategy import ServerState
from cloister.tasks.chat import CausalChat
from cloister.tasks.lexical import lexical_scores
from cloister.training.evaluation import evaluate
from cloister.training.generation import reply_score
from cloister.training.workspace import Workspace

# Most sites whose ε over rounds is drawn, and points of each line: every point is a computation of
# ε by PLD (25 ms, measured), which equal plans share.
MOST_DRAWN, POINTS = 10, 20


def write_results(
    study: SimulatedStudy,
    coordinator: Coordinator,
    state: ServerState,
    scores: SetScores,
    seconds: float,
    classes: ClassScores | None = None,
) -> tuple[RunResult, str | None]:
    """Writes a finished run's adapter, card and plots, and each site's own adapter.

    Args:
        study: The study that ran.
        coordinator: Its coordinator; its network has the final adapter afterwards.
        state: The final state, which is released.
        scores: Its scores on the public sets.
        seconds: Seconds since the run began.
        classes: Its scores of each class on the test set; None: none are drawn.

    Returns:
        The run's result, and a warning if its adapter scores no higher than guessing.
    """
    recipe, workspace, run = study.recipe, coordinator.workspace, coordinator.run
    models = site_models(study, workspace, run, state.adapter)
    for name, model in models.items():
        export(run.path / "personal" / name, workspace, model, released(recipe, workspace))
        (run.path / "personal" / name / "README.md").unlink()  # peft's empty template
    task, test = workspace.task, dict(scores.get("test", {}))
    if isinstance(task, CausalChat) and study.test:
        replies = []
        for model in list(models.values()) or [state.adapter]:
            write_adapter(workspace.network, model)
            replies.append(reply_score(workspace.network, task, workspace.tokenizer, study.test))
        test["rouge_l"] = sum(replies) / len(replies)
    result = RunResult(
        run_dir=run.path,
        task=task.kind,
        metric=task.primary_metric,
        rounds=state.round,
        test=test,
        majority=majority(study.test, task.kind),
        lexical=lexical_scores(recipe.task, study.test),
        sites=tuple(_site_result(study, run, name) for name in study.names),
        bytes_per_update=max(_bytes_per_update(row, len(study.names)) for row in run.metrics()),
        seconds=seconds,
        plans=study.plans,
        census=study.census(),
        untrained=run.untrained().get("test", {}),
        personal_test=_personal_scores(study, workspace, list(models.values()))
        if recipe.training.personal
        else None,
        began=read_began(run.path),
        old_test=forgetting(run, scores),
        private_evaluations=run.evaluations(),
        selected=coordinator.scorer.selected(),
    )
    shared = Adapter({**workspace.start.select(workspace.kept), **state.adapter})
    ending = dataclasses.replace(ending_of(study, workspace, result), classes=classes or {})
    warning = ending.write(run, shared)
    write_result(run, result)
    return result, warning


def ending_of(study: SimulatedStudy, workspace: Workspace, result: RunResult) -> Ending:
    """Returns the facts for card and plot: the result, and the promises in the sites' ledgers."""
    digest = study.recipe.digest()
    return Ending(
        recipe=study.recipe,
        workspace=workspace,
        rounds=result.rounds,
        test=result.test,
        majority=result.majority,
        label_counts=label_counts(study.test),
        sites={name: _facts(result.run_dir, name, digest) for name in study.names},
        promises={site.name: site.promise for site in result.sites},
        untrained=result.untrained,
        lexical=result.lexical,
        plain_test=result.plain_test,
        began=result.began,
        old_test=result.old_test,
        spending=_spending(result.run_dir, study.names),
        evaluations=evaluated_rounds(result.private_evaluations),
        selected=result.selected,
    )


def _spending(folder: Path, sites: Sequence[str]) -> list[SpendingSeries]:
    """Reads each ledger's ε over rounds for the plot; empty if there are too many sites."""
    found = []
    for site in sites if len(sites) <= MOST_DRAWN else ():
        path = RunDirectory(folder).ledger(site)
        entries = LedgerFile(path).entries()
        verdict = verify(entries, str(path))
        rounds = charged_rounds(entries, verdict.history, most=POINTS)
        found.append(series_of(site, rounds, None, verdict.budget_epsilon))
    return found


def _facts(folder: Path, site: str, digest: str) -> SiteFacts | str:
    """Returns what a site's own ledger states about the study: the plan that it ran."""
    path = RunDirectory(folder).ledger(site)
    verdict = verify(LedgerFile(path).entries(), str(path))
    try:
        return site_facts(statement(verdict, digest))
    except UsageError:
        return "its ledger charged no round of this study, so it sent nothing"


def write_result(run: RunDirectory, result: RunResult) -> None:
    """Writes `result.json`, which marks a run as finished and is read by `compare`."""
    write_whole(run.result_file, (json.dumps(result.to_json(), indent=1) + "\n").encode())


def _personal_scores(
    study: SimulatedStudy, workspace: Workspace, models: list[Adapter]
) -> dict[str, float]:
    """Returns the mean score of the sites' own adapters on the public test set."""
    examples = workspace.encode(study.test)
    tokens = study.recipe.machine.plain_tokens
    rows = []
    for model in models:
        write_adapter(workspace.network, model)
        rows.append(evaluate(workspace.network, workspace.task, examples, tokens).metrics)
    return mean_metrics(rows)


def _bytes_per_update(row: Mapping[str, Any], sites: int) -> int:
    answered = sites - len(row["missing"]) - len(row["retired"])
    return int(row["bytes_up"]) // max(answered, 1)


def _site_result(study: SimulatedStudy, run: RunDirectory, name: str) -> SiteResult:
    plan, ledger = study.plans[name], Ledger(run.ledger(name))
    return SiteResult(
        name=name,
        promise=ledger.promise,
        spent=ledger.spent,
        steps=ledger.training_steps,
        evaluations=ledger.evaluations,
        sample_rate=plan.sample_rate,
        noise_multiplier=plan.noise_multiplier,
        public_records=plan.public_records,
        ledger=ledger.head,
    )
