"""What is at a URL is always one whole state; a copy that fails touches nothing of the run."""

import itertools
import threading
from pathlib import Path

import pytest

from cloister.errors import NetworkError
from cloister.ledger.ledger import key_file
from cloister.ledger.storage import LedgerFile
from cloister.server.run_directory import RunDirectory
from cloister.simulation.copies import writing
from cloister.simulation.copies.fetching import fetch
from cloister.simulation.copies.manifest import CLAIM, MANIFEST, OTHER, read_manifest
from cloister.simulation.copies.place import RunPlace
from cloister.simulation.copies.remote import RunUrl
from tests.support.copied_runs import (
    SITES,
    at_url,
    close_round,
    copied,
    failing,
    finish,
    url_of,
)


class KilledError(Exception):
    pass


def never(number: int, path: str) -> None:
    """No change fails."""


def test_a_fetched_run_is_the_folder_without_what_stays(tmp_path: Path) -> None:
    run, copy = copied(tmp_path)
    finish(run)
    copy.at_end()
    found = fetch(url_of(tmp_path), tmp_path / "here")
    assert (found.round, found.is_finished) == (1, True)
    here = {p.relative_to(tmp_path / "here").as_posix() for p in (tmp_path / "here").rglob("*.*")}
    assert here == {*found.files, "copy.json"}
    for name in ("recipe.toml", "metrics.jsonl", "checkpoint/round-0001.adapter"):
        assert (tmp_path / "here" / name).read_bytes() == (run.path / name).read_bytes()
    for site in SITES:
        entries = LedgerFile(run.ledger(site)).entries()
        assert LedgerFile(RunDirectory(tmp_path / "here").ledger(site)).entries() == entries


def test_no_key_and_no_byte_of_a_release_is_at_the_url(tmp_path: Path) -> None:
    run, copy = copied(tmp_path)
    finish(run)
    copy.at_end()
    there = at_url(url_of(tmp_path))
    assert not [path for path in there if path.endswith((".key", ".lock", ".url.json"))]
    secrets = [key_file(run.ledger(site)).read_bytes() for site in SITES] + [b"bytes 1"]
    for content in there.values():
        assert not [secret for secret in secrets if secret.strip() in content]
    assert str(tmp_path).encode() not in there[MANIFEST] + there[CLAIM]


@pytest.mark.parametrize("step", ["round", "end"])
def test_a_copy_that_is_killed_at_any_change_leaves_a_whole_state(
    tmp_path: Path, step: str
) -> None:
    run, copy = copied(tmp_path)
    close_round(run, 2)
    copy.after_round(2)
    before = at_url(url_of(tmp_path))
    if step == "round":
        close_round(run, 3)
    else:
        finish(run)
    for kill in itertools.count():
        copy.url.files.rm(copy.url.store.root, recursive=True)
        for path, content in before.items():
            copy.url.files.pipe_file(copy.url.path(path), content)
        _, again = RunPlace.of(url_of(tmp_path), run.path).reopen(print)

        def die(number: int, path: str, kill: int = kill) -> None:
            if number >= kill:
                raise KilledError("the line is down")

        files = failing(again, die)
        again.after_round(3)
        found = fetch(url_of(tmp_path), tmp_path / f"here-{kill}")
        here = RunDirectory(tmp_path / f"here-{kill}")
        assert [row["round"] for row in here.metrics()] == list(range(1, found.round + 1))
        assert found.is_finished == here.result_file.is_file()
        for site in SITES:
            with LedgerFile(here.ledger(site)).reading() as reader:
                assert reader.head() == found.heads[site]
        if len(files.changes) < kill:
            break
    assert kill > 10
    assert (found.round, found.is_finished) == ((3, False) if step == "round" else (2, True))


def test_after_a_kill_the_next_copy_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    run, copy = copied(tmp_path)
    close_round(run, 2)

    def die(number: int, path: str) -> None:
        if number >= 4:
            raise KilledError("the line is down")

    files = failing(copy, die)
    copy.after_round(2)
    files.before = never
    close_round(run, 3)
    copy.after_round(3)
    there = at_url(url_of(tmp_path))
    found = read_manifest(there[MANIFEST], "there")
    assert found.round == 3
    named = {file.place(path) for path, file in found.files.items()}
    assert set(there) == {*named, MANIFEST, CLAIM}


def test_a_failure_is_said_once_until_a_copy_succeeds(tmp_path: Path) -> None:
    run, copy = copied(tmp_path)
    notes: list[str] = []
    warnings: list[str] = []
    copy.note, copy.warn = notes.append, warnings.append

    def die(number: int, path: str) -> None:
        raise KilledError("no route\nto host")

    files = failing(copy, die)
    for number in (2, 3):
        close_round(run, number)
        copy.after_round(number)
    (warning,) = warnings
    assert "round 2 could not be copied (no route)" in warning
    assert str(run.path) in warning
    with pytest.raises(NetworkError, match=r"not complete \(no route\).*there: not finished, 1 cl"):
        copy.at_end()
    files.before = never
    close_round(run, 4)
    copy.after_round(4)
    (note,) = notes
    assert note.endswith("complete again, with round 4")
    assert len(warnings) == 1
    copy.at_end()


def test_what_did_not_change_is_not_sent_again(tmp_path: Path) -> None:
    run, copy = copied(tmp_path)
    files = failing(copy, never)
    copy.after_round(1)
    assert files.changes == []
    close_round(run, 2)
    copy.after_round(2)
    sent = {path.partition("/run/")[2] for method, path in files.changes if "rm" not in method}
    assert not [path for path in sent if path.endswith(("recipe.toml", "proof.json"))]
    assert "checkpoint/round-0002.adapter" in sent
    assert f"{OTHER}/metrics.jsonl" in sent


def test_at_the_end_every_file_is_in_its_own_place(tmp_path: Path) -> None:
    run, copy = copied(tmp_path)
    close_round(run, 2)
    copy.after_round(2)
    assert [path for path in at_url(url_of(tmp_path)) if path.startswith(OTHER)]
    finish(run)
    copy.at_end()
    there = at_url(url_of(tmp_path))
    assert not [path for path in there if path.startswith(OTHER)]
    assert there["metrics.jsonl"] == (run.path / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("where", ["metrics.jsonl", "west.ledger.head"], ids=["first", "last"])
def test_a_call_that_hangs_is_left_behind_and_writes_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    run, copy = copied(tmp_path)
    answers = threading.Event()
    warnings: list[str] = []
    copy.warn = warnings.append

    def hang(number: int, path: str) -> None:
        if path.endswith(where):
            answers.wait()

    files = failing(copy, hang)
    monkeypatch.setattr(writing, "PATIENCE", 0.01)
    monkeypatch.setattr(writing, "SLOWEST", float("inf"))
    close_round(run, 2)
    copy.after_round(2)
    close_round(run, 3)
    copy.after_round(3)
    assert len(warnings) == 1
    assert "no answer in" in warnings[0]
    with pytest.raises(NetworkError, match=r"still waiting for an answer|no answer in"):
        copy.at_end()
    answers.set()
    assert copy._busy is not None
    copy._busy.wait()
    assert fetch(url_of(tmp_path), tmp_path / "here").round == 1
    monkeypatch.setattr(writing, "PATIENCE", 60.0)
    files.before = never
    copy.at_end()
    assert fetch(url_of(tmp_path), tmp_path / "there").round == 3


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    run, copy = copied(tmp_path)
    (tmp_path / "secret").write_text("a secret")
    (run.path / "metrics.jsonl").unlink()
    (run.path / "metrics.jsonl").symlink_to(tmp_path / "secret")
    warnings: list[str] = []
    copy.warn = warnings.append
    copy.after_round(2)
    assert "metrics.jsonl: is no file" in warnings[0]
    assert b"a secret" not in b"".join(at_url(url_of(tmp_path)).values())


def test_a_folder_that_fsspec_opens_is_a_url_too(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/shared/run"
    run, copy = copied(tmp_path, url)
    close_round(run, 2)
    finish(run)
    copy.at_end()
    found = fetch(url, tmp_path / "here")
    assert (found.round, found.is_finished) == (2, True)
    assert (tmp_path / "shared" / "run" / "adapter" / "cloister.json").is_file()


def test_messages_have_no_password(tmp_path: Path) -> None:
    url = RunUrl.open(url_of(tmp_path))
    given = "ftp://ann:hunter2@host/run?signature=abc"
    secret = RunUrl("ftp://host/run", url.store, given)
    shown = secret.reason(OSError(f"cannot open {given}"))
    assert "hunter2" not in shown
    assert "abc" not in shown


def test_a_run_whose_url_was_taken_meanwhile_writes_nothing_there(tmp_path: Path) -> None:
    """Where two began at once and both made the claim, the last one has it."""
    run, copy = copied(tmp_path)
    copy.url.files.pipe_file(copy.url.path(CLAIM), b'{"writer": "another"}')
    before, warnings = at_url(url_of(tmp_path)), list[str]()
    copy.warn = warnings.append
    close_round(run, 2)
    copy.after_round(2)
    assert len(warnings) == 1
    assert "names another folder" in warnings[0]
    assert at_url(url_of(tmp_path)) == before


@pytest.mark.parametrize("link", [OTHER, f"{OTHER}/metrics.jsonl"])
def test_a_link_in_a_shared_folder_does_not_lead_a_copy_elsewhere(
    tmp_path: Path, link: str
) -> None:
    run, copy = copied(tmp_path, f"file://{tmp_path}/shared/run")
    outside, there = tmp_path / "outside", tmp_path / "shared" / "run" / link
    outside.mkdir()
    (outside / "metrics.jsonl").write_text("of somebody else")
    there.parent.mkdir(exist_ok=True)
    there.symlink_to(outside if link == OTHER else outside / "metrics.jsonl")
    warnings: list[str] = []
    copy.warn = warnings.append
    close_round(run, 2)
    copy.after_round(2)
    assert "is a link there" in warnings[0]
    assert [path.name for path in outside.iterdir()] == ["metrics.jsonl"]
    assert (outside / "metrics.jsonl").read_text() == "of somebody else"
    there.unlink()
    copy.after_round(2)
    assert fetch(copy.url.given, tmp_path / "here").round == 2
