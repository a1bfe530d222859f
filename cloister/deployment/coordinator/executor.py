"""The coordinator's executor: claims the SuperLink's runs, one at a time, and executes studies.

It replaces `flower-superexec` and `flwr-serverapp` by one process that runs only the installed
code; the bundle of a run is dropped unread.
"""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx

from cloister.deployment.coordinator.deployed import DeployedStudy
from cloister.deployment.coordinator.deployed_votes import DeployedVotes
from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.coordinator.journal import RunStatus, all_runs, change_run, note, read_run
from cloister.deployment.coordinator.members import connecting, read_members
from cloister.deployment.coordinator.pushed import PushedMarks
from cloister.deployment.coordinator.reply_size import largest_reply, note_largest
from cloister.deployment.enrolment.coordinator_key import load_coordinator_key
from cloister.deployment.flower.flower_tasks import SERVER_TASK, Executor, FlowerTask, Runtime
from cloister.deployment.flower.grid import grid_of
from cloister.deployment.logs import log_json
from cloister.errors import CloisterError, NetworkError, UsageError
from cloister.server.run_directory import RunDirectory

log = logging.getLogger(__name__)

# Seconds between looks for a run.
POLL = 0.5


def serve(folder: ServerFolder) -> None:
    """Executes runs until it is ended.

    Raises:
        NetworkError: The SuperLink does not take the executor's secret.
    """
    left = {RunStatus.RUNNING: RunStatus.INTERRUPTED, RunStatus.STOPPING: RunStatus.STOPPED}
    for run in all_runs(folder.runs):
        if run.standing in left:
            change_run(folder.run(run.name), standing=left[run.standing])
    PushedMarks(folder.pushed)(())  # from now on the gate knows when nobody was asked
    runtime = Runtime(folder.superlink, folder.secret.read_bytes())
    executor = Executor(runtime, SERVER_TASK)
    while True:
        task = executor.claim()
        if task is None:
            time.sleep(POLL)
        else:
            _execute(folder, runtime, task)


def _execute(folder: ServerFolder, runtime: Runtime, task: FlowerTask) -> None:
    try:
        flower_run, config = task.run()
        place = folder.run(str(config["run"]))
        run = read_run(place)
        if run.standing is not RunStatus.SUBMITTED:
            raise UsageError(f"{run.name}: was not submitted ({run.standing})")
    except (CloisterError, KeyError) as error:
        log.error("a run that is not this coordinator's is not executed: %s", error)
        task.finish(succeeded=False)
        return
    except httpx.HTTPError as error:  # the SuperLink is too busy; it has taken the task away
        log.error("a run was claimed and could not be fetched: %s", type(error).__name__)
        task.close()
        for run in all_runs(folder.runs):
            if run.standing is RunStatus.SUBMITTED:  # the service submits it again
                told = "the SuperLink did not hand the run over"
                change_run(folder.run(run.name), standing=RunStatus.INTERRUPTED, error=told)
        return
    change_run(place, standing=RunStatus.RUNNING, flower_run=flower_run.run_id)
    note(place, "started", text=f"Flower's run {flower_run.run_id}")
    succeeded = False
    try:
        members = connecting(read_members(folder.members), datetime.now(UTC))
        directory = RunDirectory.reopen(place)
        votes = directory.recipe().votes is not None
        study = (DeployedVotes if votes else DeployedStudy).open(
            directory,
            {site: members[site] for site in run.sites if site in members},
            lambda: connecting(read_members(folder.members), datetime.now(UTC)),
            load_coordinator_key(folder.key),
            folder.heads,
        )
        note_largest(folder.largest, flower_run.run_id, largest_reply(study.longest))
        study.execute(grid_of(runtime, task, flower_run, PushedMarks(folder.pushed)))
        change_run(place, standing=RunStatus.FINISHED, error="", exit_code=0)
        succeeded = True
    except NetworkError as error:
        asked = read_run(place).standing in (RunStatus.STOPPING, RunStatus.STOPPED)
        standing = RunStatus.STOPPED if asked else RunStatus.INTERRUPTED
        note(
            place, standing.value, text=str(error)
        )  # before the status changes, because watchers stop reading then
        change_run(place, standing=standing, error=str(error), exit_code=error.exit_code)
    except CloisterError as error:
        note(place, "failed", text=str(error))
        change_run(place, standing=RunStatus.FAILED, error=str(error), exit_code=error.exit_code)
    except Exception as error:
        log.exception("run %s", run.name)
        text = f"{type(error).__name__}: {error}; this is a bug in cloister, see the log"
        note(place, "failed", text=text)
        change_run(place, standing=RunStatus.FAILED, error=text, exit_code=1)
    task.finish(succeeded)


def main(path: Path) -> None:
    """Executes the runs of a coordinator's folder until it is ended."""
    log_json("executor")
    serve(ServerFolder.open(path))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
