"""A site restored from an old copy is refused, because the coordinator knows its ledger."""

import shutil
from pathlib import Path

import pytest

from cloister.deployment.coordinator.journal import RunStatus
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.ledger.storage import LedgerFile
from tests.support.federation import federation


@pytest.mark.nightly
def test_a_restored_copy_of_a_site_is_refused_its_rounds_by_a_coordinator_started_anew(
    tmp_path: Path,
) -> None:
    """What the coordinator remembers outlives its restart, and holds in another study."""
    with federation(tmp_path, ("east",), epsilon="40.0", noise=0.8) as made:
        file = made.sites["east"]
        folder, before = file.path.parent, tmp_path / "before"
        shutil.copytree(folder, before)
        made.start("server")
        made.start("east")
        made.submit("first", 1, "federation.min_sites=1")
        assert made.wait_ended("first") is RunStatus.FINISHED
        assert (made.end("server"), made.end("east")) == (0, 0)
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        made.start("server")
        made.start("east")
        made.submit("second", 1, "federation.min_sites=1", "study.name=second")
        assert made.wait_ended("second") is RunStatus.FAILED
        assert "restore the newest backup" in AgentFolder.of(file).refusals()[-1]["why"]
        assert len(LedgerFile(file.ledger).entries()) == 1
