"""A deployment of real processes on loopback, and what it does when they are killed."""

from pathlib import Path

from cloister.client.overview import overview_of
from cloister.server.journal import Standing, events, read_run
from cloister.server.run_directory import RunDirectory
from tests.support.federation import Federation, check_history, federation


def started(made: Federation) -> None:
    for who in ("server", *made.sites):
        made.start(who)


def test_a_study_over_a_network_and_its_papers(tmp_path: Path) -> None:
    """Two sites, two rounds: the contract with Flower's private parts, end to end."""
    with federation(tmp_path, epsilon="20.0", noise=0.8) as made:
        started(made)
        place = made.submit("first", 2)
        assert made.wait_ended("first") is Standing.FINISHED, read_run(place).error
        rows = RunDirectory(place).metrics()
        assert [row["round"] for row in rows] == [1, 2]
        assert all(set(row["received"]) == {"east", "west"} for row in rows)
        assert check_history(made, "first") == {"reserved": 4, "released": 4, "counted": 4}
        assert (place / "adapter" / "adapter_config.json").is_file()
        told = [event["what"] for _, event in events(place)]
        assert told.count("asked") == told.count("answered") == 4
        for name, file in made.sites.items():
            facts = overview_of(file)
            assert facts["activity"]["answered"] == 2
            assert len(facts["releases"]) == 2
            assert facts["refusals"] == []
            assert made.end(name) == 0
        assert made.end("server") == 0
        logs = [*made.server.logs.iterdir(), *tmp_path.glob("*/*.agent/logs/*")]
        assert len(logs) == 3 + 2 * 2
        for log in logs:  # no text of a record is in any of them
            assert "pain" not in log.read_text()
