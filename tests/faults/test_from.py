"""A deployed study that begins with a finished run's adapter, and whose executor is killed."""

from pathlib import Path

import pytest

from cloister.adapter.wire import encode
from cloister.cli.main import run as cloister
from cloister.deployment.coordinator.journal import RunStatus, read_run
from cloister.deployment.site.proposed import AskedStudies
from cloister.evidence.began import read_began
from cloister.evidence.certificate_alone import check_alone
from cloister.ledger.ledger import Ledger
from cloister.ledger.stated import Basis
from cloister.server.run_directory import RunDirectory
from tests.support.federation import Federation, check_history, federation


def start(made: Federation, name: str, *words: str) -> int:
    """`cloister run start` with the small study that the federation wrote."""
    recipe, server = str(made.root / "study.toml"), str(made.server.path)
    return cloister(["run", "start", recipe, "--server", server, "--name", name, *words])


@pytest.mark.nightly
def test_a_deployed_study_goes_on_from_a_finished_run_and_survives_a_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with federation(tmp_path, epsilon="60.0", noise=0.8) as made:
        for who in ("server", *made.sites):
            made.start(who)
        first = made.submit("first", 2)
        assert made.wait_ended("first") is RunStatus.FINISHED, read_run(first).error
        heads = {name: Ledger(site.ledger).head for name, site in made.sites.items()}
        capsys.readouterr()
        assert start(made, "other", "--from", "first", "--set", "lora.r=2") == 2
        assert "lora.r: 2 given, first has" in capsys.readouterr().err
        assert not made.server.run("other").exists()

        old = made.root / "test.jsonl"
        assert start(made, "next", "--from", "first", "--set", f"data.old_test={old}") == 0
        assert "begins with the adapter of first" in capsys.readouterr().err
        made.wait_answered("next", 1)
        assert made.kill("server", "executor")
        place = made.server.run("next")
        assert made.wait_ended("next") is RunStatus.FINISHED, read_run(place).error
        check_history(made, "first", "next")

        run, recipe = RunDirectory(place), RunDirectory(place).recipe()
        begun_at = (place / "start" / "adapter").read_bytes()
        assert begun_at == encode(RunDirectory(first).last().adapter)
        began = read_began(place)
        assert began is not None
        assert (began.run, began.adapter) == ("first", recipe.study.start)
        scored = run.untrained()["old_test"]["accuracy"]
        assert scored == RunDirectory(first).metrics()[-1]["test"]["accuracy"]
        card = (place / "adapter" / "README.md").read_text()
        assert "Scores on the public test set of the earlier study" in card
        for name, site in made.sites.items():
            # The site was asked about the very study that names the adapter.
            assert AskedStudies.of(site).recipe(recipe.digest()).study.start == began.adapter
            ledger = Ledger(site.ledger)
            ledger.check_anchor(heads[name])
            former = began.sites[name]
            assert former is not None
            fields = check_alone(
                (place / "certificates" / f"{name}.certificate.json").read_bytes(),
                site=name,
                study=recipe.digest(),
                key=ledger.public_key,
                most_steps=1000,
            )
            assert fields["promise"]["basis"] == Basis.LIFETIME_BUDGET
            assert fields["life"]["spent"]["epsilon"] > fields["spent"]["epsilon"]
            assert f"entry {former.head.seq}, `{former.head.hash}`" in card
