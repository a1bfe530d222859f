"""The end of a simulation: adapter, card and plots written, the result stated."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from cloister.adapter.tensors import Adapter
from cloister.export.adapter_folder import Released, export
from cloister.export.card import write_card
from cloister.files import write_whole
from cloister.ledger.ledger import Ledger
from cloister.models.state import write_adapter
from cloister.server.plots import plot_run
from cloister.server.run_directory import RunDirectory
from cloister.server.scoring import mean_metrics
from cloister.server.study import SetScores
from cloister.simulation.card import card_for
from cloister.simulation.personal import site_models
from cloister.simulation.result import Result, SiteResult
from cloister.simulation.study import SimulatedStudy
from cloister.strategies.strategy import ServerState
from cloister.tasks.chat import CausalChat
from cloister.training.evaluation import evaluate
from cloister.training.generation import reply_score
from cloister.training.workspace import Workspace


def write_results(
    study: SimulatedStudy,
    workspace: Workspace,
    run: RunDirectory,
    state: ServerState,
    scores: SetScores,
    seconds: float,
) -> Result:
    """Writes a finished run's adapter, card and plots.

    Args:
        study: What ran.
        workspace: Left with the final adapter in its network.
        run: Where to write.
        state: The final state.
        scores: Its scores on the public sets.
        seconds: Since the run began.
    """
    recipe, task = study.recipe, workspace.task
    about = Released(
        model=dataclasses.replace(recipe.model, sha256=workspace.base_sha256),
        lora=recipe.lora,
        task=recipe.task,
        data=recipe.data,
        seed=recipe.study.seed,
    )
    models = site_models(study, workspace, run, state.adapter)
    for name, model in models.items():
        export(run.path / "personal" / name, workspace, model, about)
        (run.path / "personal" / name / "README.md").unlink()  # peft's empty form
    shared = Adapter({**workspace.start.select(workspace.kept), **state.adapter})
    export(run.adapter, workspace, shared, about)
    test = dict(scores["test"])
    if isinstance(task, CausalChat):
        replies = []
        for model in list(models.values()) or [state.adapter]:
            write_adapter(workspace.network, model)
            replies.append(reply_score(workspace.network, task, workspace.tokenizer, study.test))
        test["rouge_l"] = sum(replies) / len(replies)
    rows = run.metrics()
    result = Result(
        run_dir=run.path,
        task=task.kind,
        metric=task.primary_metric,
        rounds=state.round,
        test=test,
        majority=study.majority(),
        sites=tuple(_site_result(study, run, name) for name in study.names),
        bytes_per_update=max(_bytes_per_update(row, len(study.names)) for row in rows),
        seconds=seconds,
        plans=study.plans,
        census=study.census(),
        personal_test=_personal_scores(study, workspace, list(models.values()))
        if recipe.training.personal
        else None,
    )
    write_card(run.adapter, card_for(study, workspace, result))
    promises = {site.name: site.promise for site in result.sites}
    plot_run(rows, task.primary_metric, recipe.study.name, promises, run.path / "metrics.png")
    write_result(run, result)
    return result


def write_result(run: RunDirectory, result: Result) -> None:
    """Writes `result.json`, by which a finished run is known and compared."""
    write_whole(run.result_file, (json.dumps(result.to_json(), indent=1) + "\n").encode())


def _personal_scores(
    study: SimulatedStudy, workspace: Workspace, models: list[Adapter]
) -> dict[str, float]:
    """Scores of sites' own adapters on the public test set, the mean over sites."""
    examples = workspace.encode(study.test)
    tokens = study.recipe.machine.physical_batch_tokens
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
        steps=ledger.steps,
        sample_rate=plan.sample_rate,
        noise_multiplier=plan.noise_multiplier,
        public_records=plan.public_records,
        ledger=ledger.head,
    )
