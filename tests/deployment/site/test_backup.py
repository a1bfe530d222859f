"""A site's backup restores everything or nothing, and never overwrites a running site."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.adapter.tensors import Adapter
from cloister.archive import opened_archive, write_archive
from cloister.cli.main import run
from cloister.client.personal import PersonalAdapter
from cloister.client.site_file import EXAMPLE, SiteFile, read_site
from cloister.deployment.coordinator.folder import ServerConfig, ServerFolder
from cloister.deployment.site.agent_folder import AgentFolder
from cloister.deployment.site.backup import LEFT_OUT, back_up
from cloister.deployment.site.joining import SiteMembership
from cloister.deployment.site.open_ledger import begin_ledger, open_ledger
from cloister.deployment.site.restore import restore
from cloister.errors import BadFileError, CloisterError, LedgerError, RefusedError, UsageError
from cloister.files import write_whole
from cloister.ledger.anchor import anchor_of, read_anchor
from cloister.ledger.charge import Released
from cloister.ledger.storage import LedgerFile
from tests.support.examples import ALL, tries
from tests.support.federation import admit
from tests.support.ledgers import charge, reserved, run_round
from tests.support.odd_paths import ODD_KINDS, odd_path
from tests.support.papers import NOW
from tests.support.power_cut import memory_folder
from tests.support.rights import open_to_others, open_umask

ROUNDS = 2


def make_site(folder: Path, ledger: str = "records.ledger", rounds: int = ROUNDS) -> SiteFile:
    """A member of a federation that has released some rounds and was cut off in another."""
    folder.mkdir(parents=True)
    text = EXAMPLE.replace("st-marys", "ward").replace('"records.ledger"', json.dumps(ledger))
    text = text.replace('unit = "person"', 'unit = "record"').replace(
        "epsilon = 8.0", "epsilon = 50.0"
    )
    text = text.replace("delta = 1e-5", "delta = 2e-5")
    (folder / "site.toml").write_text(text)
    (folder / "records.jsonl").write_text('{"text": "of a patient", "label": "cardiology"}\n')
    file = read_site(folder / "site.toml")
    begin_ledger(file)
    config = ServerConfig(name="desk", address="localhost:9443")
    admit(ServerFolder.create(folder.parent / f"{folder.name}.desk", config, NOW), file, NOW)
    for paper in ("invite.json", "welcome.json"):  # of which it has its own copies
        (folder / paper).unlink()
    place = AgentFolder.of(file)
    place.own.mkdir(parents=True)
    place.note_refusal(RefusedError("no"), "study", 1)
    write_whole(place.proofs, b"{}", mode=0o600)
    place.note_activity({"doing": "waiting"})
    kept = PersonalAdapter.beside(file.ledger, "s" * 64)
    kept.save(1, Adapter({"x.lora_B.weight": np.zeros(2, np.float32)}))
    go_on(file, 1, rounds)
    return file


def go_on(file: SiteFile, first: int, last: int) -> dict[int, bytes]:
    """Releases rounds; what left, by round."""
    ledger = open_ledger(file)
    return {number: run_round(ledger, number).payload for number in range(first, last + 1)}


def again(file: SiteFile, number: int) -> bytes:
    """What the site sends when a released round is asked again."""
    granted = open_ledger(file).reserve(charge(number))
    assert isinstance(granted, Released)
    return granted.payload


def file_key(ledger: Path) -> str:
    return str(LedgerFile(ledger).entries()[0].fields["key"])


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# What a site's folder holds and no backup does: records, and what is made anew.
NOT_KEPT = {"records.jsonl", "records.ledger.lock"} | {f"ward.agent/own/{n}" for n in LEFT_OUT}


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


def test_a_deleted_site_comes_back_and_goes_on(place: Path) -> None:
    """The documented backup lacked the head, so that no ledger could be opened from it."""
    file = make_site(place / "ward")
    reserved(open_ledger(file), ROUNDS + 1)  # a crash cut it off
    sent = {number: again(file, number) for number in range(1, ROUNDS + 1)}
    before, node = tree(place / "ward"), SiteMembership.of(file)
    made = back_up(file.path, place / "b.tar")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    shutil.rmtree(place / "ward")
    back = restore(made.path, place / "ward")
    assert back.file == file
    after = tree(place / "ward")
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed <= NOT_KEPT | {"records.ledger"}  # SQLite's own counters
    assert {number: again(file, number) for number in sent} == sent
    with pytest.raises(CloisterError, match="stays spent"):
        open_ledger(file).reserve(charge(ROUNDS + 1))
    assert node.invite.site == "ward"
    assert go_on(file, ROUNDS + 2, ROUNDS + 2)
    with pytest.raises(CloisterError, match="asked before with another"):
        open_ledger(file).reserve(charge(1).__class__(**{**vars(charge(1)), "request": "other"}))


def test_whatever_a_site_leaves_is_in_its_backup_or_left_out_by_name(place: Path) -> None:
    """A file that somebody adds to a site's folder is either backed up or listed here."""
    file = make_site(place / "ward")
    decided = place / "ward" / "ward.approvals"
    (decided / "asked").mkdir(parents=True)
    (decided / f"{os.geteuid()}.jsonl").write_text("{}")
    back_up(file.path, place / "b.tar")
    restore(place / "b.tar", place / "new")
    assert set(tree(place / "ward")) - set(tree(place / "new")) <= NOT_KEPT
    assert b"of a patient" not in (place / "b.tar").read_bytes()


def test_nothing_of_a_restored_site_is_others_to_read(place: Path) -> None:
    back_up(make_site(place / "ward").path, place / "b.tar")
    with open_umask():
        restore(place / "b.tar", place / "new")
    assert "new" not in open_to_others(place)
    assert open_to_others(place / "new") == {}


def test_a_backup_is_of_one_moment_while_the_site_goes_on(place: Path) -> None:
    """Another process charges and releases without pause; every backup is a sound prefix."""
    file = make_site(place / "ward")
    child = os.fork()
    if child == 0:
        try:
            ledger, number = open_ledger(file), 10
            while True:
                reserved(ledger, number).release(os.urandom(9000))
                number += 1
        finally:  # the budget is spent
            os._exit(1)
    try:
        lengths, number = list[int](), 0
        while number < 6 or lengths[-1] == lengths[0]:  # however late the other one begins
            made = back_up(file.path, place / f"{number}.tar")
            lengths.append(len(made.ledger.entries))
            back = restore(made.path, place / f"back{number}")
            assert len(back.ledger.entries) == lengths[-1]
            shutil.rmtree(place / f"back{number}")
            number += 1
            assert number < 1000
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0]
    whole = LedgerFile(file.ledger).entries()
    assert whole[lengths[0] - 1].hash == made_head(place / "0.tar")


def made_head(path: Path) -> str:
    with opened_archive(path) as archive:
        return str(archive.about["hash"])


def test_a_living_site_is_not_written_over(place: Path) -> None:
    file = make_site(place / "ward")
    back_up(file.path, place / "b.tar")
    with pytest.raises(UsageError, match="has this site, with 5 of the backup's 5"):
        restore(place / "b.tar", place / "ward")
    go_on(file, 3, 3)
    before = tree(place / "ward")
    with pytest.raises(UsageError, match=r"7 entries and the backup's only 5: .* roll back"):
        restore(place / "b.tar", place / "ward")
    AgentFolder.of(file).service.write_text(json.dumps({"pid": os.getpid()}))
    assert tree(place / "ward").keys() - before.keys() == {"ward.agent/service.json"}
    make_site(place / "other")
    with pytest.raises(UsageError, match="has another site"):
        restore(place / "b.tar", place / "other")
    (place / "some").mkdir()
    (place / "some" / "file").touch()
    with pytest.raises(UsageError, match="is not empty"):
        restore(place / "b.tar", place / "some")
    (place / "empty").mkdir()
    assert restore(place / "b.tar", place / "empty").ledger.verdict.releases == ROUNDS


@pytest.mark.parametrize("kind", ODD_KINDS)
def test_odd_things_at_a_path_are_one_error(place: Path, kind: str) -> None:
    file = make_site(place / "ward")
    back_up(file.path, place / "b.tar")
    odd = odd_path(kind, place / "odd")
    before = sorted(place.rglob("*"))
    with pytest.raises(CloisterError):
        restore(odd, place / "new")
    with pytest.raises(CloisterError, match="exists already"):
        back_up(file.path, odd)
    if kind != "folder":  # an empty one is as good as none
        with pytest.raises(CloisterError):
            restore(place / "b.tar", odd)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["with space", "ünïcödé", "new\nline", "-dash", "'q\"$(x)", "." * 3]
)
def test_folders_of_any_name(place: Path, name: str) -> None:
    file = make_site(place / name)
    back_up(place / name, place / f"{name}.tar")
    shutil.rmtree(place / name)
    assert restore(place / f"{name}.tar", place / name).file == file
    assert go_on(file, 3, 3)


class TestOfAnOlderBackup:
    """Nobody can tell from a backup alone whether it is the latest; a head elsewhere can."""

    def test_a_head_that_was_seen_later_refuses_it(self, place: Path) -> None:
        file = make_site(place / "ward")
        back_up(file.path, place / "old.tar")
        go_on(file, 3, 3)
        back_up(file.path, place / "new.tar")
        entries = LedgerFile(file.ledger).entries()
        seen = place / "head.json"
        key = open_ledger(file).public_key
        seen.write_text(json.dumps(anchor_of(entries[-1], key).to_json()))
        with pytest.raises(LedgerError, match="ends at entry 4, but entry 6 exists"):
            restore(place / "old.tar", place / "back", seen=read_anchor(seen))
        assert not (place / "back").exists()
        assert restore(place / "new.tar", place / "back", seen=read_anchor(seen))
        other = make_site(place / "other")
        entries, key = LedgerFile(other.ledger).entries(), open_ledger(other).public_key
        seen.write_text(json.dumps(anchor_of(entries[-1], key).to_json()))
        with pytest.raises(LedgerError, match="another site's"):
            restore(place / "new.tar", place / "b2", seen=read_anchor(seen))

    def test_it_is_said_what_then_happens(
        self, place: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = make_site(place / "ward")
        assert run(["site", "backup", str(file.path), "--out", str(place / "b.tar")]) == 0
        told = capsys.readouterr().out
        assert "records are not in it" in told
        head = open_ledger(file).head
        assert run(["site", "restore", str(place / "b.tar"), str(place / "new")]) == 0
        told = capsys.readouterr().out
        for word in (
            head.hash,
            "5 entries",
            "2 released",
            "of the budget's 50",
            "in no backup",
            "refuses every question",
            "restore the newest backup",
        ):
            assert word in told
        assert run(["site", "restore", str(place / "b.tar"), str(place / "n2"), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["seq"], facts["entries"], facts["releases"]) == (head.seq, 5, 2)
        assert facts["records_there"] is False


class TestWithItsLedgerElsewhere:
    def test_whoever_restores_names_the_place(self, place: Path) -> None:
        file = make_site(place / "ward", ledger="../ledgers/x.ledger")
        back_up(file.path, place / "b.tar")
        sent = again(file, 1)
        for gone in ("ward", "ledgers"):
            shutil.rmtree(place / gone)
        with pytest.raises(UsageError, match=r"--ledger .*ledgers/x.ledger"):
            restore(place / "b.tar", place / "ward")
        with pytest.raises(UsageError, match="has it at"):
            restore(place / "b.tar", place / "ward", ledger=place / "x.ledger")
        assert sorted(path.name for path in place.iterdir()) == ["b.tar", "ward.desk"]
        made = restore(place / "b.tar", place / "ward", ledger=place / "ledgers" / "x.ledger")
        assert made.file.ledger.samefile(place / "ledgers" / "x.ledger")
        assert again(file, 1) == sent
        assert stat.S_IMODE((place / "ledgers").stat().st_mode) == 0o700
        assert go_on(file, 3, 3)

    def test_a_longer_ledger_there_is_kept_and_a_shorter_refused(self, place: Path) -> None:
        file = make_site(place / "ward", ledger="../ledgers/x.ledger")
        where = place / "ledgers" / "x.ledger"
        back_up(file.path, place / "old.tar")
        shutil.copytree(place / "ledgers", place / "short")
        go_on(file, 3, 3)
        back_up(file.path, place / "new.tar")
        before = where.read_bytes()
        shutil.rmtree(place / "ward")
        latest = anchor_of(LedgerFile(where).entries()[-1], file_key(where))
        made = restore(place / "old.tar", place / "ward", ledger=where, seen=latest)
        assert made.kept
        assert made.ledger.verdict.releases == 3
        assert where.read_bytes() == before
        for gone in ("ward", "ledgers"):
            shutil.rmtree(place / gone)
        shutil.move(place / "short", place / "ledgers")
        with pytest.raises(LedgerError, match="not overwritten"):
            restore(place / "new.tar", place / "ward", ledger=where)
        assert not (place / "ward").exists()


# --- archives that are not what was written


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    back_up(make_site(folder / "ward", rounds=1).path, folder / "b.tar")
    return folder / "b.tar"


@settings(max_examples=tries(80), deadline=None)
@given(data=st.data())
def test_every_changed_byte_is_refused_and_nothing_written(
    archive: Path, data: st.DataObject
) -> None:
    content = bytearray(archive.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "longer", "drop", "twice"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if kind == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[at:]
    elif kind == "longer":
        content += data.draw(st.binary(min_size=1, max_size=2000))
    elif kind == "drop":
        del content[at : at + data.draw(st.integers(1, 2000))]
    else:
        content[at:at] = content[at : at + data.draw(st.integers(1, 2000))]
    if content == archive.read_bytes():
        return
    with memory_folder() as folder:
        (folder / "b.tar").write_bytes(content)
        with pytest.raises(BadFileError):
            restore(folder / "b.tar", folder / "new")
        assert [path.name for path in folder.iterdir()] == ["b.tar"]


HOSTILE: dict[str, Callable[[dict[str, object]], object]] = {
    "parent": lambda d: d["files"][0].update(name="../site.toml"),  # type: ignore[index]
    "absolute": lambda d: d["files"][0].update(name="/etc/passwd"),  # type: ignore[index]
    "hidden": lambda d: d["files"][0].update(name=".ssh/keys"),  # type: ignore[index]
    "twice": lambda d: d["files"][1].update(name=d["files"][0]["name"]),  # type: ignore[index]
    "negative": lambda d: d["files"][0].update(bytes=-1),  # type: ignore[index]
    "huge": lambda d: d["files"][0].update(bytes=2**60),  # type: ignore[index]
    "no list": lambda d: d.update(files={"a": 1}),
    "many": lambda d: d.update(files=[d["files"][0]] * 10_000),  # type: ignore[index]
    "no number": lambda d: d["files"][0].update(bytes="9"),  # type: ignore[index]
    "later format": lambda d: d.update(format=2),
    "another kind": lambda d: d["about"].update(kind="coordinator"),  # type: ignore[attr-defined]
    "name": lambda d: d["about"].update(site="../x"),  # type: ignore[attr-defined]
    "file": lambda d: d["about"].update(file="a/b"),  # type: ignore[attr-defined]
    "no about": lambda d: d.pop("about"),
    "deep": lambda d: d.update(about=json.loads("[" * 900 + "]" * 900)),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_manifest_with_its_right_sum_may_still_say_nothing_it_must_not(
    archive: Path, place: Path, hostile: str
) -> None:
    """Whoever can write a backup can sum it too: what it may name is fixed."""
    import tarfile

    content = archive.read_bytes()
    with tarfile.open(archive) as tar:  # any tar reads it
        members = tar.getmembers()
        manifest = tar.extractfile(members[0])
        assert manifest is not None
        document = json.loads(manifest.read())
        assert [member.name for member in members[1:]] == [row["name"] for row in document["files"]]
        assert all(member.isreg() for member in members)
    HOSTILE[hostile](document)
    new = json.dumps(document).encode()
    info = tarfile.TarInfo(f"MANIFEST.{hashlib.sha256(new).hexdigest()}")
    info.size, info.mode = len(new), 0o600
    head = info.tobuf(tarfile.GNU_FORMAT)
    rest = content[members[1].offset :]
    (place / "b.tar").write_bytes(head + new + bytes(-len(new) % 512) + rest)
    with pytest.raises(BadFileError):
        restore(place / "b.tar", place / "new")
    assert [path.name for path in place.iterdir()] == ["b.tar"]


def test_members_that_no_site_has_are_refused(place: Path) -> None:
    with opened_archive(_backup(place)) as opened:
        about = dict(opened.about)
        files = {member.name: place / str(number) for number, member in enumerate(opened.members)}
        opened.unpack(files)
    for name in ("site.toml/x", "approvals", "approvals/asked/x", "agent/a/b", "x"):
        write_archive(place / "c.tar", about, files | {name: place / "0"})
        with pytest.raises(BadFileError, match="not a file of a site"):
            restore(place / "c.tar", place / "new")
    for name in ("ledger", "ledger.key", "ledger.head", "site.toml"):
        write_archive(place / "c.tar", about, {n: p for n, p in files.items() if n != name})
        with pytest.raises(BadFileError, match="has no"):
            restore(place / "c.tar", place / "new")
    write_archive(place / "c.tar", about | {"hash": "0" * 64}, files)
    with pytest.raises(LedgerError, match="not the one in its manifest"):
        restore(place / "c.tar", place / "new")
    assert not (place / "new").exists()
    assert not list(place.glob(".*"))


def _backup(place: Path) -> Path:
    return back_up(make_site(place / "ward").path, place / "b.tar").path


def test_a_ledger_that_is_damaged_is_not_backed_up(place: Path) -> None:
    import apsw

    file = make_site(place / "ward")
    connection = apsw.Connection(str(file.ledger))
    connection.execute("UPDATE payloads SET bytes = x'00' WHERE seq = 2")
    connection.close()
    with pytest.raises(LedgerError, match="bytes of release 2"):
        back_up(file.path, place / "b.tar")
    assert not list(place.glob("*.tar"))
    assert not list(place.glob(".*"))


# --- interruptions

CALLS = ["open", "fsync", "rename", "write", "mkdir", "flock"]


@pytest.mark.parametrize("elsewhere", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_a_restore_that_is_killed_anywhere_leaves_nothing_or_all(
    place: Path, elsewhere: bool
) -> None:
    """Killed before its calls of the system in turn, and restored again afterwards.

    Before every third of them in `make test`, before each in `make nightly`.
    """
    root = place / str(elsewhere)
    file = make_site(root / "ward", ledger="../l/x.ledger" if elsewhere else "x.ledger")
    back_up(file.path, root / "b.tar")
    sent = again(file, 2)
    at, whole = 0, False
    while not whole:
        shutil.rmtree(root / "ward", ignore_errors=True)
        shutil.rmtree(root / "l", ignore_errors=True)
        whole = _killed_at(at, root, file if elsewhere else None)
        if (root / "ward").exists():
            assert again(file, 2) == sent
            assert SiteMembership.of(file).node_key.exists()
        else:
            assert not whole
            with pytest.raises(CloisterError):
                open_ledger(file)
            named = file.ledger if elsewhere else None
            restore(root / "b.tar", root / "ward", ledger=named)
            assert again(file, 2) == sent
            left = {path.name for path in root.iterdir()}
            assert left <= {"ward", "l", "b.tar", "ward.desk"}
        at += 1 if ALL else 3
    assert at > 25  # as many points at least


def _killed_at(at: int, root: Path, elsewhere: SiteFile | None) -> bool:
    """Restores in a process of its own that is killed before its call number `at`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            count = 0

            def before(event: str, args: object) -> None:
                nonlocal count
                if event in ("open", "os.rename", "os.mkdir", "shutil.rmtree", "os.remove"):
                    if count == at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    count += 1

            sys.addaudithook(before)
            restore(root / "b.tar", root / "ward", ledger=elsewhere and elsewhere.ledger)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


@pytest.mark.parametrize("full", [0, 1, 3, 6, 9])
def test_a_full_disk_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, full: int
) -> None:
    file = make_site(place / "ward")
    back_up(file.path, place / "b.tar")
    before, count = sorted(place.rglob("*")), 0
    true = os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > full:
            raise OSError(28, "No space left on device")
        true(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(BadFileError, match="No space left"):
        restore(place / "b.tar", place / "new")
    count = full
    with pytest.raises(BadFileError, match="No space left"):
        back_up(file.path, place / "c.tar")
    assert sorted(place.rglob("*")) == before


def test_too_little_room_is_said_before_anything_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _backup(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    with pytest.raises(BadFileError, match="0 bytes are free, but"):
        restore(place / "b.tar", place / "new")


def test_two_restores_to_one_place_do_not_mix(place: Path) -> None:
    _backup(place)
    import fcntl

    stage = place / ".new.restoring"
    stage.mkdir()
    descriptor = os.open(stage, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another process"):
        restore(place / "b.tar", place / "new")
    os.close(descriptor)
    assert restore(place / "b.tar", place / "new")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away as root alone can")
def test_root_gives_files_to_whose_they_are(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's to its user; decisions on studies count only in a file of who made them."""
    file = make_site(place / "ward")
    (place / "ward" / "ward.approvals").mkdir()
    for account in (0, 12345):
        decided = place / "ward" / "ward.approvals" / f"{account}.jsonl"
        decided.write_text("{}\n")
        os.chown(decided, account, -1)
    text = file.path.read_text().replace('# agent_user = "cloister"', 'agent_user = "nobody"')
    file.path.write_text(text)
    back_up(file.path, place / "b.tar")
    restore(place / "b.tar", place / "new")
    import pwd

    user = pwd.getpwnam("nobody").pw_uid
    owners = {
        str(path.relative_to(place / "new")): path.stat().st_uid
        for path in (place / "new").rglob("*")
    }
    assert owners["records.ledger"] == owners["ward.agent/own"] == user
    papers = place / "new" / "ward.federation"
    assert owners["ward.federation/node.key"] == 0
    assert stat.S_IMODE((papers / "node.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((papers / "authority.crt").stat().st_mode) == 0o644  # the agent reads there
    assert owners["ward.approvals/12345.jsonl"] == 12345
    assert owners["ward.approvals/0.jsonl"] == owners["ward.approvals"] == 0
    made = restore(place / "b.tar", place / "again")
    assert made.strangers == {}
    monkeypatch.setattr(os, "geteuid", lambda: 99)
    made = restore(place / "b.tar", place / "third")  # by somebody who may give nothing away
    folder = place / "third" / "ward.approvals"
    assert made.strangers == {folder / "12345.jsonl": 12345, folder / "0.jsonl": 0}


def test_the_commands_as_the_page_on_deployment_has_them(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line of the page's section on backups, as somebody types it."""
    page = (Path(__file__).parents[3] / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = page.split("## Backups of a site\n")[1].split("\n## ")[0]
    lines = [line[2:] for line in section.splitlines() if line.startswith("$ ")]
    lines.insert(2, "rm -r st-marys")  # the disk is lost
    assert "site restore" in lines[3]
    make_site(place / "st-marys")
    monkeypatch.chdir(place)
    for line in lines:
        command, *words = shlex.split(line)
        if command == "rm":
            shutil.rmtree(words[-1])
            continue
        assert command == "cloister"
        typed, into = words, None
        if ">" in words:
            typed, into = words[: words.index(">")], Path(words[-1])
        capsys.readouterr()
        assert run(typed) == 0, line
        if into is not None:
            into.write_text(capsys.readouterr().out)
    file = read_site(place / "st-marys" / "site.toml")
    assert go_on(file, 3, 3)
