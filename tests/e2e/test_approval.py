"""In real processes a study waits for a site's operator, who inspects and approves it."""

import json
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.deployment.coordinator.journal import RunStatus, events, read_run
from cloister.deployment.enrolment.authority import fingerprint
from cloister.deployment.site.proposed import AskedStudies
from cloister.ledger.storage import LedgerFile
from cloister.models.base import weights_sha256
from cloister.server.run_directory import RunDirectory
from tests.support.approvals import standing
from tests.support.federation import check_history, federation, wait_for


@pytest.mark.nightly
def test_a_study_waits_for_an_operator_and_goes_on_once_they_approve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with federation(tmp_path, epsilon="40.0", noise=0.8, approves=False) as made:
        west = made.sites["west"].path
        west.write_text(west.read_text() + standing(weights_sha256(made.base)))
        for who in ("server", "east", "west"):
            made.start(who)
        place = made.submit("one", 2)
        file = made.sites["east"]
        wait_for("the study at east", lambda: list(AskedStudies.of(file).asked()))
        said = "waiting for the operator of east"
        wait_for("its coordinator", lambda: said in _told(place))
        assert "waiting for the operator of west" not in _told(place)
        assert RunDirectory(place).metrics() == []
        assert [e.fields["kind"] for e in LedgerFile(file.ledger).entries()] == ["begin"]

        assert run(["site", "studies", "list", str(file.path), "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["studies"]
        assert row["state"] == "waiting"
        assert run(["site", "studies", "show", str(file.path), row["study"][:12]]) == 0
        told = capsys.readouterr().out
        assert made.server.config.name in told  # who asks, and by which fingerprint
        assert fingerprint(made.server.authority.pem) in told
        assert run(["site", "studies", "approve", str(file.path), row["study"], "--yes"]) == 0

        assert made.wait_ended("one") is RunStatus.FINISHED, read_run(place).error
        assert [set(row["received"]) for row in RunDirectory(place).metrics()] == [
            {"east", "west"}
        ] * 2
        whats = [(event["what"], event.get("site")) for _, event in events(place)]
        assert whats.count(("waiting", "east")) == 1
        assert ("refused", "east") not in whats  # it was at no fault
        check_history(made, "one")


def _told(place: Path) -> str:
    return " ".join(str(event.get("text", "")) for _, event in events(place))
