"""A deployment over a network that delays, cuts and stalls."""

import json
import threading
from pathlib import Path

import pytest

from cloister.deployment.coordinator.folder import ServerFolder
from cloister.deployment.coordinator.journal import RunStatus, read_run
from cloister.server.run_directory import RunDirectory
from tests.support.federation import check_history, federation
from tests.support.network import network

# Seconds of a half-open connection; Flower's calls give up after 30.
STALL = 10.0


@pytest.mark.nightly
def test_rounds_survive_delay_cut_and_half_open_connections(tmp_path: Path) -> None:
    with (
        federation(tmp_path, epsilon="40.0", noise=0.8) as made,
        network(made.server.config.place[1]) as between,
    ):
        for file in made.sites.values():  # their invites name the way through the network
            redirect(file.path.parent / f"{file.site.name}.federation", between.port, made.server)
        for who in ("server", *made.sites):
            made.start(who)
        between.delay = 0.02
        place = made.submit("rough", 4)
        made.wait_closed("rough", 1)
        between.cut()
        made.wait_closed("rough", 2)
        between.is_stalled = True
        threading.Timer(STALL, lambda: setattr(between, "is_stalled", False)).start()
        made.wait_closed("rough", 3)
        between.cut()
        assert made.wait_ended("rough") is RunStatus.FINISHED, read_run(place).error
        assert between.connections > 2 * len(made.sites)  # they were made anew
        rows = RunDirectory(place).metrics()
        assert [row["round"] for row in rows] == [1, 2, 3, 4]
        assert all(set(row["received"]) == {"east", "west"} for row in rows)
        counts = check_history(made, "rough")
        assert counts["reserved"] == counts["released"] == counts["counted"] == 8


def redirect(folder: Path, port: int, server: ServerFolder) -> None:
    """Gives a site an invite with another address, signed by the same authority."""
    from cloister.deployment.enrolment.documents import Invite, write_invite

    said = json.loads((folder / "invite.json").read_text())["body"]
    invite = Invite(**{**said, "address": f"localhost:{port}"})
    write_invite(folder / "invite.json", invite, server.authority)
