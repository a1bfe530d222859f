"""An authority is rotated under a running federation, by the commands of the docs."""

from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.deployment.coordinator.journal import RunStatus, read_run
from cloister.deployment.coordinator.rotation import rotation_of
from cloister.deployment.enrolment.authority import fingerprint
from cloister.deployment.site.joining import SiteMembership
from cloister.server.run_directory import RunDirectory
from tests.support.federation import check_history, federation, wait_for


@pytest.mark.nightly
def test_a_run_goes_on_while_the_authority_is_rotated(tmp_path: Path) -> None:
    """No site is restarted by hand: each SuperNode takes both authorities up between two rounds."""
    with federation(tmp_path, epsilon="20.0", noise=0.8) as made:
        for who in ("server", *made.sites):
            made.start(who)
        place, hub = made.submit("long", 12), str(made.server.path)
        made.wait_closed("long", 1)
        nodes = {site: made.child(site, "supernode") for site in made.sites}
        assert run(["server", "rotate-ca", hub]) == 0
        found = rotation_of(made.server)
        assert found is not None
        paper = str(made.server.path / "succession.json")
        for file in made.sites.values():
            told = ["--fingerprint", found.paper.fingerprint]
            assert run(["site", "trust-ca", str(file.path), paper, *told]) == 0
        for site, before in nodes.items():
            wait_for(
                f"{site}'s SuperNode to start anew",
                lambda site=site, before=before: (
                    made.child(site, "supernode") not in (None, before)
                ),
            )
        assert run(["server", "rotate-ca", hub, "--switch"]) == 2  # the service runs
        assert made.end("server") == 0
        assert run(["server", "rotate-ca", hub, "--switch"]) == 0
        made.start("server")
        assert made.wait_ended("long") is RunStatus.FINISHED, read_run(place).error
        rows = RunDirectory(place).metrics()
        assert len(rows) == 12
        assert set(rows[-1]["received"]) == {"east", "west"}
        check_history(made, "long")
        for file in made.sites.values():
            trusted = SiteMembership.of(file).authority.read_bytes()
            assert trusted.endswith(made.server.certificate.read_bytes())
        assert fingerprint(made.server.certificate.read_bytes()) == found.paper.fingerprint
