"""A deployment with umask 0 still writes files for its owner only; and a lost site."""

import shutil
from pathlib import Path

import pytest

from cloister.client.personal import PersonalAdapter
from cloister.deployment.coordinator.journal import RunStatus
from cloister.deployment.site.backup import back_up
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.restore import restore
from tests.support.federation import check_history, federation
from tests.support.rights import open_to_others, open_umask

# By name: the operator's own files, as the support module writes them; papers that travel; and at
# the coordinator certificates, and what every site is told: name and address.
PUBLIC = {
    "site.toml",
    "records.jsonl",
    "invite.json",
    "welcome.json",
    "ca.crt",
    "endpoint.crt",
    "loopback.crt",
    "server.toml",
}


@pytest.mark.nightly
def test_a_site_is_lost_in_mid_run_and_goes_on_from_its_backup(tmp_path: Path) -> None:
    """Nothing that services write is others' to read; the restored site answers the next round."""
    tmp_path.chmod(0o755)
    with open_umask(), federation(tmp_path / "fed", ("east",)) as made:
        made.start("server")
        made.start("east")
        made.submit("study", rounds=4)
        made.wait_closed("study", 2)
        file = made.sites["east"]
        backup = back_up(file.path, made.root / "east.tar")  # while it runs
        assert "coordinator" not in open_to_others(made.root)  # nobody gets in
        assert set(open_to_others(made.root / "coordinator")) <= PUBLIC  # and if they did
        left = open_to_others(file.path.parent)
        assert set(left) <= PUBLIC
        made.end("east")
        newest = back_up(file.path, made.root / "newest.tar")
        assert len(newest.ledger.entries) >= len(backup.ledger.entries)
        records = file.data.read_bytes()
        shutil.rmtree(file.path.parent)
        back = restore(newest.path, file.path.parent)
        assert back.file == file
        assert SiteMembership.of(file).is_welcome()
        assert not PersonalAdapter.beside(file.ledger, "").folder.exists()
        file.data.write_bytes(records)
        made.start("east")
        assert made.wait_ended("study") is RunStatus.FINISHED
        made.end_all()
        counts = check_history(made, "study")
    assert counts["released"] == counts["counted"] >= 3  # a round that was cut off stays spent
