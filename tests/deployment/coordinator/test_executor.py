"""A run that the SuperLink does not hand over is submitted again, not waited for without end."""

from pathlib import Path

import httpx
import pytest

from cloister.deployment.coordinator.executor import _execute
from cloister.deployment.coordinator.journal import Run, RunStatus, read_run, write_run
from cloister.deployment.flower.flower_tasks import Runtime
from tests.support.gate import make_folder


class BusyTask:
    """A task that was claimed from a SuperLink that no longer answers."""

    closed = False

    def run(self) -> object:
        raise httpx.ReadTimeout("timed out")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("before", RunStatus)
def test_a_run_that_cannot_be_fetched_is_interrupted(tmp_path: Path, before: RunStatus) -> None:
    folder, task = make_folder(tmp_path), BusyTask()
    place = folder.run("one")
    place.mkdir()
    write_run(place, Run(name="one", standing=before, flower_run=1, sites=("ward",)))
    _execute(folder, Runtime(folder.superlink, b"s"), task)  # type: ignore[arg-type]
    expected = RunStatus.INTERRUPTED if before is RunStatus.SUBMITTED else before
    assert read_run(place).standing is expected
    assert task.closed
