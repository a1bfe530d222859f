"""The coordinator scores a round with the names that trained in it, whoever trained them."""

from pathlib import Path

from cloister.server.run_directory import RunDirectory
from cloister.simulation.open_ledgers import OpenLedgers
from cloister.simulation.run import coordinator_of
from cloister.simulation.study import prepare, workspace_of
from cloister.strategies.strategy import ServerState
from tests.support.studies import small_recipe


def test_scores_of_head_rounds_take_what_the_head_reads_from_the_cache(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study", "training.probe_rounds=1")
    study = prepare(recipe)
    workspace = workspace_of(study)
    run = RunDirectory.create(tmp_path / "run", recipe)
    scorer = coordinator_of(study, workspace, run, OpenLedgers()).scorer
    cache = workspace.network.head_inputs
    assert cache is not None
    workspace.train_names(frozenset(workspace.start))  # no site trains in this process
    of_head = scorer.scores(ServerState(workspace.start, 1))
    assert cache.can_serve()
    assert scorer.scores(ServerState(workspace.start, 2)) == of_head
    assert not cache.can_serve()
