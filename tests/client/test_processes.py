"""If a site's process dies, its round is charged and spent as a whole, or not charged."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from cloister.adapter.tensors import Adapter
from cloister.adapter.wire import encode
from cloister.client import round as round_file
from cloister.client.round import run_round
from cloister.errors import RefusedError, RoundSpentError, UsageError
from cloister.ledger.storage import LedgerFile
from cloister.privacy.clipping import ClippedSum
from cloister.protocol.exchange import RoundRequest, Status, Step
from cloister.server.run_directory import RunDirectory
from cloister.simulation.early import check_engine
from cloister.simulation.ledgers import begin_ledgers
from cloister.simulation.study import SimulatedSites, prepare
from cloister.training import team as team_file
from cloister.training.gradients import clipped_gradient_sum
from cloister.training.team import Team
from tests.support import worker_forks
from tests.support.studies import small_recipe

EAST = Context(
    run_id=1, node_id=1, node_config={"partition-id": 0}, state=RecordDict(), run_config={}
)


def test_a_round_in_which_a_process_dies_is_spent_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # tests/training/test_team.py starts them with interpreters of their own.
    monkeypatch.setattr(team_file, "subprocess", worker_forks)
    recipe = small_recipe(tmp_path / "study", "machine.processes=2", "machine.device=cpu")
    study = prepare(recipe)
    run = RunDirectory.create(tmp_path / "run", recipe)
    begin_ledgers(study, run)
    admitted = SimulatedSites(recipe, run.path / "ledgers", study).admitted(EAST)
    team = admitted.workspace.team
    assert team is not None
    assert team.is_whole
    start = encode(admitted.workspace.whole)

    def entries() -> int:
        return len(list(LedgerFile(run.ledger("east")).entries()))

    def asked(number: int) -> RoundRequest:
        return RoundRequest(study.recipe.digest(), number, start)

    def killing(*arguments: object) -> ClippedSum:
        for worker in team.workers:
            os.kill(worker.process.pid, signal.SIGKILL)
        return clipped_gradient_sum(*arguments)  # type: ignore[arg-type]

    before = entries()
    with monkeypatch.context() as patched:
        patched.setattr(team_file, "clipped_gradient_sum", killing)
        for worker in team.workers:
            os.kill(worker.process.pid, signal.SIGSTOP)  # so that it cannot answer before
        with pytest.raises(RoundSpentError, match=r"round 1 .* process 2 of 2 .* by SIGKILL"):
            run_round(admitted, asked(1), lambda: None)
    assert entries() == before + 1  # the whole round's charge, and nothing released
    with pytest.raises(RoundSpentError):
        run_round(admitted, asked(1), lambda: None)
    assert not team.is_whole  # nothing is started for a round that is over

    def cannot(*_: object) -> None:
        raise RefusedError("no memory for another process")

    with monkeypatch.context() as patched:
        patched.setattr(Team, "start", cannot)
        with pytest.raises(RefusedError, match="no memory"):
            run_round(admitted, asked(2), lambda: None)
    assert entries() == before + 1  # nothing was charged for what could not run

    reply = run_round(admitted, asked(2), lambda: None)
    assert reply.status is Status.TRAINED
    assert team.is_whole
    team.close()


@pytest.mark.parametrize(
    ("step", "is_charged", "expected"),
    [
        (Step.MASK, False, ["gather", "charge"]),
        (Step.MASK, True, ["charge"]),  # sent again: nothing is summed
        (Step.REVEAL, False, ["charge"]),
    ],
)
def test_processes_are_at_hand_before_a_masked_sum_is_charged(
    step: Step, is_charged: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    exchange = SimpleNamespace(answer=lambda *_: order.append("charge"))
    known = {
        "Query": SimpleNamespace(from_bytes=lambda _: SimpleNamespace(evaluates=False)),
        "SecureExchange": lambda *_: exchange,
        **dict.fromkeys(("agreed_terms", "digest", "asked_charge", "_released"), lambda *_: None),
    }
    for name, value in known.items():
        monkeypatch.setattr(round_file, name, value)
    site = SimpleNamespace(
        keys=True,
        start=None,
        plan=SimpleNamespace(evaluations=None),
        study="",
        name="",
        entropy=lambda *_: None,
        ledger=SimpleNamespace(public_key="", has_charged=lambda *_: is_charged),
        policy=SimpleNamespace(accept=SimpleNamespace(max_adapter_value=1.0)),
    )
    workspace = SimpleNamespace(team=True, whole=SimpleNamespace(shapes={}))
    admitted: Any = SimpleNamespace(
        site=site,
        workspace=workspace,
        plan=SimpleNamespace(votes=None),
        question=SimpleNamespace(decode=lambda *_: Adapter({})),
        gather=lambda: order.append("gather"),
    )
    round_file._answer_secure(admitted, RoundRequest("", 1, b"", step), lambda: None)
    assert order == expected


def test_ray_s_workers_start_no_processes_of_their_own(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "study", "machine.processes=2")
    check_engine(recipe, "local")
    with pytest.raises(UsageError, match=r"machine.processes: 2 given with --engine ray"):
        check_engine(recipe, "ray")
