"""The journal has complete lines, loses no change, and records a stop."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.deployment.coordinator import journal
from cloister.deployment.coordinator.journal import (
    ENDED,
    Run,
    RunStatus,
    all_runs,
    ask_to_stop,
    change_run,
    events,
    note,
    read_run,
    ready_sites,
    write_run,
)
from cloister.errors import BadFileError


def begun(folder: Path, name: str = "run", standing: RunStatus = RunStatus.RUNNING) -> Path:
    place = folder / name
    place.mkdir(parents=True)
    write_run(place, Run(name=name, standing=standing, flower_run=7, sites=("a", "b")))
    return place


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    place = begun(tmp_path)
    run = change_run(place, error="gone", exit_code=7, resumed=2)
    assert read_run(place) == run
    assert (run.sites, run.error, run.flower_run) == (("a", "b"), "gone", 7)
    assert [path.name for path in place.iterdir()] == ["run.json"]


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="not a run of this coordinator"):
        read_run(tmp_path / "none")


DAMAGED = ["", "[]", "{}", '{"standing": "lost"}', "\x00", "[" * 5000]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_run_is_named_and_hides_no_other(tmp_path: Path, text: str) -> None:
    place = begun(tmp_path, "broken")
    begun(tmp_path, "other")
    (place / "run.json").write_text(text)
    with pytest.raises(BadFileError, match="damaged"):
        read_run(place)
    broken, other = all_runs(tmp_path)
    assert (broken.name, broken.standing, broken.exit_code) == ("broken", RunStatus.FAILED, 3)
    assert "damaged" in broken.error
    assert (other.name, other.standing) == ("other", RunStatus.RUNNING)


@pytest.mark.parametrize("standing", RunStatus)
def test_what_asking_to_stop_comes_to(tmp_path: Path, standing: RunStatus) -> None:
    place = begun(tmp_path, standing=standing)
    assert ask_to_stop(place).standing is standing
    now = read_run(place).standing
    if standing in ENDED:
        assert now is standing
    elif standing in (RunStatus.RUNNING, RunStatus.STOPPING):
        assert now is RunStatus.STOPPING
    else:
        assert now is RunStatus.STOPPED  # nobody executes it


def test_a_stop_is_not_forgotten(tmp_path: Path) -> None:
    """Whoever executes the run says what it does; that does not undo what was asked."""
    place = begun(tmp_path)
    ask_to_stop(place)
    assert (
        change_run(place, standing=RunStatus.RUNNING, flower_run=8).standing is RunStatus.STOPPING
    )
    assert change_run(place, standing=RunStatus.INTERRUPTED).standing is RunStatus.STOPPED
    other = begun(tmp_path, "other")
    ask_to_stop(other)
    assert change_run(other, standing=RunStatus.FINISHED).standing is RunStatus.FINISHED


ADD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from cloister.deployment.coordinator import journal
place = Path(sys.argv[1])
for number in range(25):
    with journal.holding(place):
        run = journal.read_run(place)
        journal.write_run(place, journal.dataclasses.replace(run, resumed=run.resumed + 1))
    journal.note(place, "asked", round=number, site=sys.argv[3])
"""


def test_changes_and_events_from_several_processes_lose_nothing(tmp_path: Path) -> None:
    place = begun(tmp_path)
    root = str(Path(__file__).parents[3])
    processes = [
        subprocess.Popen([sys.executable, "-c", ADD, str(place), root, site]) for site in "abc"
    ]
    assert [process.wait(600) for process in processes] == [0, 0, 0]
    assert read_run(place).resumed == 75
    told = [event for _, event in events(place)]
    assert len(told) == 75
    for site in "abc":
        assert [e["round"] for e in told if e["site"] == site] == list(range(25))


def test_events_are_read_on_from_where_they_were_left(tmp_path: Path) -> None:
    assert list(events(tmp_path)) == []
    note(tmp_path, "asked", round=1, site="a")
    ((place, first),) = events(tmp_path)
    assert (first["what"], first["round"], first["site"]) == ("asked", 1, "a")
    note(tmp_path, "answered", round=1, site="a")
    assert [event["what"] for _, event in events(tmp_path, place)] == ["answered"]
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


def test_half_a_line_is_waited_for_and_a_broken_one_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = json.dumps({"what": "asked"})
    path.write_text(f'{whole}\n{{"what"\n{whole}\n{whole}')
    told = list(events(tmp_path))
    assert [event["what"] for _, event in told] == ["asked", "asked"]
    with path.open("a") as file:
        file.write("\n")
    assert [event["what"] for _, event in events(tmp_path, told[-1][0])] == ["asked"]


def test_who_takes_part_is_told_by_what_each_site_said_last(tmp_path: Path) -> None:
    assert ready_sites(tmp_path) == frozenset()
    for site in ("a", "b", "c", "d"):
        note(tmp_path, "ready", round=0, site=site)
    note(tmp_path, "refused", round=0, site="b", text="it says: refused")
    note(tmp_path, "retired", round=3, site="c")
    note(tmp_path, "refused", round=2, site="d", text="a mistake")
    note(tmp_path, "asked", round=1, site="a")
    assert ready_sites(tmp_path) == {"a"}
    note(tmp_path, "ready", round=0, site="d")
    assert ready_sites(tmp_path) == {"a", "d"}


def test_events_that_a_site_can_repeat_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that goes away and comes back without end filled the coordinator's disk."""
    monkeypatch.setattr(journal, "MOST_BYTES", 20_000)
    place = begun(tmp_path)
    for number in range(1000):
        note(place, "lost" if number % 2 else "asked", round=1, site="east")
    note(place, "closed", round=1)
    note(place, "asked", round=2, site="east")
    note(place, "finished", round=2)
    found = [event for _, event in events(place)]
    assert (place / "events.jsonl").stat().st_size < 21_000
    assert [event["what"] for event in found[-3:]] == ["note", "closed", "finished"]
    assert "no further ones are written" in found[-3]["text"]


def test_a_text_in_an_event_is_bounded(tmp_path: Path) -> None:
    place = begun(tmp_path)
    note(place, "refused", round=1, site="east", text="why " * 10**6)
    (found,) = [event for _, event in events(place)]
    assert len(json.dumps(found)) < 5_000
    assert found["text"].endswith("more characters")
