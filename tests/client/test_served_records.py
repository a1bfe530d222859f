"""The served records match the site file, after reloads and changed columns too."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.client import site_file
from cloister.client.policy_file import EXAMPLE, SitePolicy, parse_policy
from cloister.client.site_file import SiteConfig, SiteFile, read_site
from cloister.data.values import MOST_ROW_BYTES
from cloister.deployment.site import agent
from cloister.deployment.site.agent import _reading_period
from cloister.models.base import weights_sha256
from cloister.protocol.exchange import RoundRequest, Status, Step
from tests.support.neighbours import LABELS, RECORDS, notes, study
from tests.support.wards import READ, Ward


def test_a_reload_takes_the_records_between_two_rounds(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch)
    served = ward.agent._sites.records
    file = read_site(ward.folder / "site.toml")
    file.data.write_text("".join(json.dumps(row) + "\n" for row in notes(7)))
    ward.agent._reload_if_asked()  # nobody asked
    assert len(served.current.records) == 20
    ward.agent._folder.ask_reload()
    ward.agent._reload_if_asked()
    assert len(served.current.records) == 7
    assert ward.agent._folder.records()["records"] == 7
    file.data.write_text("{")
    ward.agent._folder.ask_reload()
    ward.agent._reload_if_asked()
    assert len(served.current.records) == 7
    assert "valid JSON" in ward.agent._folder.refusals()[-1]["why"]


def test_what_memory_is_free_is_looked_at_before_the_records_are_read(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many records go through at once would follow from how many there are."""
    order: list[str] = []

    class Noted(agent.RecordSource):
        def __init__(self, file: SiteFile) -> None:
            order.append("records")
            super().__init__(file)

    monkeypatch.setattr(agent, "RecordSource", Noted)
    monkeypatch.setattr(agent, "free_at_start", lambda device: order.append(device.type))
    Ward.open(tmp_path / "ward", notes(), bert, monkeypatch)
    assert order == ["cpu", "records"]


@pytest.mark.parametrize("rows", [notes(3), notes(90), [*notes(), RECORDS["a long text"]], ["{"]])
def test_after_a_reload_the_agent_goes_on_at_a_moment(
    rows: list[object], bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch)
    file = read_site(ward.folder / "site.toml")
    file.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ward.agent._folder.ask_reload()
    begun = ward.clock.now
    ward.agent._reload_if_asked()
    assert ward.clock.now == pytest.approx(begun + _reading_period(file))


def test_a_moment_of_beginning_to_serve_has_room_for_a_row_as_large_as_any(tmp_path: Path) -> None:
    file = SiteFile(
        tmp_path / "site.toml",
        SiteConfig(name="a", data="a.jsonl", public_records=9, ledger="a.ledger"),
        parse_policy(EXAMPLE),
    )
    assert _reading_period(file) >= MOST_ROW_BYTES * READ
    many = replace(file, site=replace(file.site, public_records=10**6))
    assert _reading_period(many) > _reading_period(file)


CHANGED: dict[str, tuple[str, str]] = {
    "the column of persons": ('person = "person"', 'person = "visit"'),
    "the column of texts": ('data = "records.jsonl"', 'data = "records.jsonl"\ntext = "note"'),
    "the labels": ('"orthopaedics"]', '"orthopaedics", "oncology"]'),
    "the file": ('data = "records.jsonl"', 'data = "other.jsonl"'),
    "the unit": ('unit = "person"', 'unit = "record"'),
}


@pytest.mark.parametrize("name", CHANGED)
def test_records_are_served_as_declared_when_they_were_read_or_not_at_all(
    name: str, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grouped by visits, they once went on as a study's persons after the file was corrected."""
    rows = [{**row, "visit": f"v{n}", "note": row["text"]} for n, row in enumerate(notes())]
    ward = Ward.open(tmp_path / "ward", rows, bert, monkeypatch, unit="person")
    path = ward.folder / "site.toml"
    shutil.copy(ward.folder / "records.jsonl", ward.folder / "other.jsonl")

    def ask() -> object:
        by = "record" if name == "the unit" else "person"
        labels = json.dumps([*LABELS, "oncology"])
        recipe = study(bert, f"privacy.unit={by}", "data.person=person", f"task.labels={labels}")
        return ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE)).said[2]

    def units() -> int:
        admitted = ward.agent._sites.admitted
        assert admitted is not None
        return len(admitted[1].site.units)

    def reload() -> None:
        ward.agent._folder.ask_reload()
        ward.agent._reload_if_asked()

    if name != "the unit":
        assert ask() is Status.READY
        assert units() == 5
    path.write_text(path.read_text().replace(*CHANGED[name]))
    assert ask() is Status.REFUSED
    assert "cloister site reload" in ward.agent._folder.refusals()[-1]["why"]
    reload()
    if name in ("the unit", "the column of persons"):  # the ledger was begun for others, for life
        assert ask() is Status.REFUSED
        assert "ledger" in ward.agent._folder.refusals()[-1]["why"]
        return
    assert ask() is Status.READY
    assert units() == 5


def test_a_reading_of_the_same_bytes_is_another_reading(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file and its hash are the same, and what was made of them need not be."""
    ward, recipe = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch), study(bert)
    asked = RoundRequest(recipe.digest(), 0, b"", Step.PREPARE)
    ward.ask(recipe, asked)
    first = ward.agent._sites.admitted
    ward.ask(recipe, asked)
    assert ward.agent._sites.admitted is first
    ward.agent._folder.ask_reload()
    ward.agent._reload_if_asked()
    ward.ask(recipe, asked)
    assert ward.agent._sites.admitted is not first


def test_an_admission_belongs_to_the_bytes_that_it_was_made_from(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that is tightened while it is read holds from the next question on."""
    ward, recipe = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch), study(bert)
    path, read, times = ward.folder / "site.toml", site_file.policy_of, []

    def tightened(tables: dict[str, object]) -> SitePolicy:
        times.append(1)
        if len(times) == 2:  # the first is for how long a round may take
            path.write_text(path.read_text().replace(weights_sha256(bert), "0" * 64))
        return read(tables)

    monkeypatch.setattr(site_file, "policy_of", tightened)
    asked = RoundRequest(recipe.digest(), 0, b"", Step.PREPARE)
    assert ward.ask(recipe, asked).said[2] is Status.READY
    assert ward.ask(recipe, asked).said[2] is Status.REFUSED


@pytest.mark.parametrize("content", ["", "[site", "\x00", "[site]\nname = 3", None])
def test_a_site_file_that_is_half_written_refuses_and_ends_nothing(
    content: str | None, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward, recipe = Ward.open(tmp_path / "ward", notes(), bert, monkeypatch), study(bert)
    path = ward.folder / "site.toml"
    whole = path.read_text()
    for step in (Step.PREPARE, Step.TRAIN):
        path.unlink() if content is None else path.write_text(content)
        question = RoundRequest(recipe.digest(), int(step is Step.TRAIN), ward.adapter, step)
        assert ward.ask(recipe, question).said[2] is Status.REFUSED
        path.write_text(whole)
        ready = ward.ask(recipe, RoundRequest(recipe.digest(), 0, b"", Step.PREPARE))
        assert ready.said[2] is Status.READY
