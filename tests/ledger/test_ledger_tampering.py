"""Changes to a ledger's files without its key are detected, or have no effect."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.canonical import canonical
from cloister.errors import LedgerError
from cloister.ledger.chain import Entry, Head, sign
from cloister.ledger.charge import Released
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import VERSION, LedgerFile
from tests.support.ledgers import charge, new_ledger, reserved, run_round
from tests.support.power_cut import memory_folder

ROUNDS = 3
ENTRIES = 1 + 2 * ROUNDS


@pytest.fixture
def path() -> Iterator[Path]:
    with memory_folder() as folder:
        path = folder / "site.ledger"
        ledger = new_ledger(path)
        for number in range(1, ROUNDS + 1):
            run_round(ledger, number)
        yield path


def head_file(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def history(path: Path) -> tuple[object, ...]:
    """Everything that an opened ledger goes by."""
    known = Ledger(path)._history
    return (known.head, known.budget, known.unit, known.rounds, known.released, known.spent)


def write_sql(path: Path, *statements: str) -> None:
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def set_head(path: Path, head: Head) -> None:
    head_file(path).write_bytes(canonical({"seq": head.seq, "hash": head.hash}))


def put_entries(path: Path, entries: list[Entry]) -> None:
    """Replaces all entries and writes the head that fits."""
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM payloads")
    connection.execute("DELETE FROM entries")
    for seq, entry in enumerate(entries):
        connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (seq, *vars(entry).values()))
    connection.close()
    set_head(path, Head(len(entries) - 1, entries[-1].hash))


class Flips:
    """Flips one byte after another of a ledger's file, and puts all files back in between.

    Args:
        path: The ledger.
        seed: Of the bits.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._path, self._bits = path, random.Random(seed)
        self._files = {file: file.read_bytes() for file in (path, head_file(path))}
        self.whole = self._files[path]

    @contextmanager
    def at(self, place: int) -> Iterator[None]:
        with self._path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), bytes([self.whole[place] ^ self._bits.randint(1, 255)]), place)
            yield
            os.pwrite(file.fileno(), self.whole[place : place + 1], place)
        for file, content in self._files.items():
            if file.read_bytes() != content:  # somebody wrote
                file.write_bytes(content)
        for leftover in ("-journal", "-wal", "-shm"):
            self._path.with_name(self._path.name + leftover).unlink(missing_ok=True)


@pytest.mark.parametrize("share", [0.1, pytest.param(1.0, marks=pytest.mark.nightly)])
def test_no_flipped_byte_changes_what_is_known(path: Path, share: float) -> None:
    known, flips = history(path), Flips(path, 0)
    # Every byte of the header, of every cell and near one; of the zeros between them a sample.
    whole = flips.whole
    used = [place for place in range(len(whole)) if any(whole[max(place - 8, 0) : place + 9])]
    free = sorted({*range(len(whole))}.difference(used))
    draw = random.Random(3)
    used = draw.sample(used, round(share * len(used)))
    refused = 0
    for place in used + draw.sample(free, round(share * 300)):
        with flips.at(place):
            try:
                assert history(path) == known, place
                again = Ledger(path).reserve(charge(2))
                assert isinstance(again, Released)
                assert again.payload == b"bytes 2", place
            except LedgerError:
                refused += 1
    cells = sum(len(entry.body) + len(entry.signature) for entry in LedgerFile(path).entries())
    assert (
        refused > 0.9 * share * cells
    )  # about each byte of an entry, and each byte that leads to it
    assert history(path) == known


def test_a_flipped_byte_that_was_not_seen_loses_no_charge_later(path: Path) -> None:
    known, flips = history(path), Flips(path, 1)
    gone_on = 0
    for place in [*range(100), *random.Random(2).sample(range(len(flips.whole)), 150)]:
        with flips.at(place):
            try:
                ledger = Ledger(path)
                for number in (8, 9):
                    run_round(ledger, number)
                assert Ledger(path).steps == 5 * (ROUNDS + 2), place
                gone_on += 1
            except LedgerError:
                pass
    assert gone_on > 10
    assert history(path) == known


def test_a_file_that_was_cut_short_is_refused_or_known_whole(path: Path) -> None:
    whole, known = path.read_bytes(), history(path)
    last_page = len(whole) - 4096
    for length in {*range(0, len(whole), 61), *range(0, len(whole), 512)}:
        path.write_bytes(whole[:length])
        try:
            assert history(path) == known, length
            assert length > last_page  # where the releases' bytes are, and no entry
            Ledger(path).reserve(charge(2))
        except LedgerError:
            continue
        assert whole[length:].strip(b"\0") == b"", length


@pytest.mark.parametrize("seq", range(ENTRIES))
def test_a_deleted_entry_is_missed(path: Path, seq: int) -> None:
    write_sql(path, f"DELETE FROM entries WHERE seq = {seq}")
    with pytest.raises(LedgerError):
        Ledger(path)


@pytest.mark.parametrize("kept", range(ENTRIES))
def test_a_tail_that_was_cut_off_is_missed(path: Path, kept: int) -> None:
    write_sql(path, f"DELETE FROM entries WHERE seq >= {kept}")
    with pytest.raises(LedgerError):
        Ledger(path)


def test_deleted_bytes_are_not_made_anew(path: Path) -> None:
    write_sql(path, "DELETE FROM payloads WHERE seq = 4")
    ledger = Ledger(path)
    with pytest.raises(LedgerError, match="the bytes of release 4 are missing"):
        ledger.reserve(charge(2))
    write_sql(path, "UPDATE payloads SET bytes = x'00' WHERE seq = 2")
    with pytest.raises(LedgerError, match="the bytes of release 2 changed"):
        ledger.reserve(charge(1))


@pytest.mark.parametrize(("one", "other"), [(1, 3), (2, 4), (0, 1), (5, 6)])
def test_reordered_entries_are_refused(path: Path, one: int, other: int) -> None:
    write_sql(
        path,
        "PRAGMA foreign_keys = OFF",
        f"UPDATE entries SET seq = 99 WHERE seq = {one}",
        f"UPDATE entries SET seq = {one} WHERE seq = {other}",
        f"UPDATE entries SET seq = {other} WHERE seq = 99",
    )
    with pytest.raises(LedgerError):
        Ledger(path)


def test_renumbered_entries_are_refused(path: Path) -> None:
    head_file(path).unlink()
    write_sql(path, "UPDATE entries SET seq = seq - 6")  # the last one is entry 0 now
    with pytest.raises(LedgerError):
        Ledger(path)


@pytest.mark.parametrize("with_head", [False, True], ids=["head kept", "head rewritten"])
@pytest.mark.parametrize(
    ("seq", "change"),
    [
        (0, {"epsilon": None}),
        (0, {"delta": 0.5}),
        (
            1,
            {
                "event": {
                    "is_private": True,
                    "noise_multiplier": 1.0,
                    "sample_rate": 0.1,
                    "steps": 1,
                }
            },
        ),
        (3, {"round": 77}),
        (6, {"sha256": "0" * 64}),
    ],
)
def test_an_edited_entry_is_refused_though_every_later_hash_is_made_anew(
    path: Path, seq: int, change: dict[str, object], with_head: bool
) -> None:
    entries = LedgerFile(path).entries()
    forger = Ed25519PrivateKey.generate()
    kept_head = head_file(path).read_bytes()
    forged = entries[:seq]
    for number in range(seq, len(entries)):
        fields = entries[number].fields | (change if number == seq else {})
        before = Head(number - 1, forged[-1].hash) if number else None
        # His own signature, or the one that was there: the site's key he does not have.
        entry = sign(fields, before, forger)
        forged.append(Entry(entry.body, entries[number].signature) if number % 2 else entry)
    put_entries(path, forged)
    if not with_head:
        head_file(path).write_bytes(kept_head)
    with pytest.raises(LedgerError):
        Ledger(path)


def test_an_added_entry_is_refused_without_the_key(path: Path) -> None:
    entries = LedgerFile(path).entries()
    head = Head(len(entries) - 1, entries[-1].hash)
    fields = {**entries[1].fields, "round": 50}
    put_entries(path, [*entries, sign(fields, head, Ed25519PrivateKey.generate())])
    with pytest.raises(LedgerError, match=f"entry {ENTRIES}: not signed by the key"):
        Ledger(path)


def test_a_forged_entry_is_refused_by_a_ledger_that_is_open(path: Path) -> None:
    ledger = Ledger(path)
    fields = {**LedgerFile(path).entries()[1].fields, "round": 50}
    forged = sign(fields, ledger.head, Ed25519PrivateKey.generate())
    write_sql(path, f"INSERT INTO entries VALUES ({ENTRIES}, x'{forged.body.hex()}', x'00')")
    with pytest.raises(LedgerError, match="not signed by the key"):
        ledger.reserve(charge(8))


def copies(path: Path, to: Path) -> tuple[Path, Path]:
    to.mkdir(exist_ok=True)
    for file in (path, head_file(path), path.with_name(path.name + ".key")):
        shutil.copy(file, to / file.name)
    return to / path.name, head_file(to / path.name)


def test_an_old_copy_of_the_file_is_refused_for_its_head(path: Path, tmp_path: Path) -> None:
    old, _ = copies(path, tmp_path / "backup")
    ledger = Ledger(path)
    run_round(ledger, 9)
    shutil.copy(old, path)
    with pytest.raises(LedgerError, match="rolled back or replaced"):
        Ledger(path)
    with pytest.raises(LedgerError, match="rolled back or replaced"):
        ledger.reserve(charge(10))


def test_an_old_copy_of_the_file_and_its_head_is_refused_by_an_anchor(
    path: Path, tmp_path: Path
) -> None:
    old, old_head = copies(path, tmp_path / "backup")
    ledger = Ledger(path)
    before = ledger.head
    run_round(ledger, 9)
    anchor = ledger.head
    shutil.copy(old, path)
    shutil.copy(old_head, head_file(path))
    with pytest.raises(LedgerError):  # who has it open notices, too
        ledger.reserve(charge(10))
    restored = Ledger(path)  # nothing at the site tells
    restored.check_anchor(before)
    for number in (10, 11, 12):
        with pytest.raises(LedgerError, match=f"entry {anchor.seq} was seen before"):
            restored.check_anchor(anchor)
        run_round(restored, number)


def test_two_copies_that_went_on_apart_reject_each_other_s_anchors(
    path: Path, tmp_path: Path
) -> None:
    shared = Ledger(path).head
    other = Ledger(copies(path, tmp_path / "fork")[0])
    mine = Ledger(path)
    run_round(mine, 8)
    run_round(other, 9)
    for one, two in ((mine, other), (other, mine)):
        one.check_anchor(shared)
        one.check_anchor(one.head)
        with pytest.raises(LedgerError, match="was seen before"):
            one.check_anchor(two.head)
    shutil.copy(tmp_path / "fork" / path.name, path)  # the other's file in an open one's place
    with pytest.raises(LedgerError):
        mine.reserve(charge(10))


def test_a_ledger_without_its_head_is_refused(path: Path) -> None:
    open_one = Ledger(path)
    head_file(path).unlink()
    for use in (lambda: Ledger(path), lambda: open_one.reserve(charge(8))):
        with pytest.raises(LedgerError, match="missing; restore it from its backup"):
            use()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00" * 80,
        b"\xff\xfe\xfd",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b'{"seq":2}',
        b'{"seq":"two","hash":"aa"}',
        b'{"seq":null,"hash":"aa"}',
        b'{"seq":2,"hash":null}',
        b'{"seq":2,"hash":"aa"}',
        b'{"seq":-1,"hash":"aa"}',
        b'{"seq":1e999,"hash":"aa"}',
        b'{"seq":NaN,"hash":"aa"}',
        b'{"seq":1e30,"hash":"aa"}',
        b'{"seq":-1e30,"hash":"aa"}',
        b'{"seq":' + b"9" * 30 + b',"hash":"aa"}',
        b'{"seq":' + b"9" * 9999 + b',"hash":"aa"}',
        b"[" * 100_000,
    ],
    ids=range(20),
)
def test_a_head_that_is_garbage_is_refused(path: Path, garbage: bytes) -> None:
    head_file(path).write_bytes(garbage)
    with pytest.raises(LedgerError):
        Ledger(path)


def test_every_flipped_byte_of_a_head_is_seen_or_means_the_same(path: Path) -> None:
    known, whole = history(path), head_file(path).read_bytes()
    for place, byte in enumerate(whole):
        for bits in (1, 32, 128):
            changed = whole[:place] + bytes([byte ^ bits]) + whole[place + 1 :]
            head_file(path).write_bytes(changed)
            try:
                assert history(path) == known
            except LedgerError:
                continue
            pytest.fail(f"opened with the head {changed!r}")


def nothing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def text(path: Path) -> None:
    path.write_text('{"kind": "charge", "epsilon": 1.0}\n' * 500)


def noise(path: Path) -> None:
    path.write_bytes(random.Random(2).randbytes(8192))


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def another_program_s(path: Path) -> None:
    path.unlink()
    write_sql(path, "CREATE TABLE entries (seq INTEGER PRIMARY KEY, body, signature)")


def a_later_version_s(path: Path) -> None:
    write_sql(path, f"PRAGMA user_version = {VERSION + 1}")


def without_tables(path: Path) -> None:
    write_sql(path, "DROP TABLE payloads", "DROP TABLE entries")


def without_entries(path: Path) -> None:
    write_sql(path, "DELETE FROM payloads", "DELETE FROM entries")


@pytest.mark.parametrize(
    "replace",
    [
        nothing,
        empty,
        directory,
        text,
        noise,
        link_to_itself,
        another_program_s,
        a_later_version_s,
        without_tables,
        without_entries,
    ],
)
@pytest.mark.parametrize("with_head", [True, False], ids=["its head there", "no head"])
def test_what_is_no_ledger_is_neither_opened_nor_overwritten(
    path: Path, replace: Callable[[Path], None], with_head: bool
) -> None:
    open_one = Ledger(path)
    replace(path)
    if not with_head:
        head_file(path).unlink()
    before = path.read_bytes() if path.is_file() else None
    uses: list[Callable[[], object]] = [
        lambda: Ledger(path),
        lambda: open_one.reserve(charge(8)),
        lambda: open_one.reserve(charge(1)),
    ]
    if with_head or before:
        uses.append(lambda: new_ledger(path))
    for use in uses:
        with pytest.raises(LedgerError):
            use()
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize(
    "value", ["'text'", "NULL", "7", "0.5", "9223372036854775807", "-1", "x''"]
)
@pytest.mark.parametrize("column", ["body", "signature", "payload"])
def test_a_value_of_another_type_is_refused(path: Path, column: str, value: str) -> None:
    table = {"body": "entries", "signature": "entries", "payload": "payloads"}[column]
    strict = "UPDATE sqlite_schema SET sql = {} WHERE type = 'table'"
    write_sql(
        path,
        "PRAGMA writable_schema = ON",
        strict.format("replace(rtrim(sql, 'STRIC'), 'NOT NULL', '/*here*/')"),
    )
    place = {"payload": "bytes"}.get(column, column)
    write_sql(
        path,
        f"UPDATE {table} SET {place} = {value} WHERE seq = 2",
        "PRAGMA writable_schema = ON",
        strict.format("replace(sql, '/*here*/', 'NOT NULL') || 'STRICT'"),
    )
    with pytest.raises(LedgerError):
        Ledger(path).reserve(charge(1))


@pytest.mark.parametrize(
    "trap",
    [
        "CREATE TRIGGER trap BEFORE INSERT ON entries BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TRIGGER trap AFTER INSERT ON entries BEGIN DELETE FROM entries WHERE seq = 3; END",
        "CREATE TRIGGER trap AFTER INSERT ON entries BEGIN "
        "DELETE FROM entries WHERE seq = new.seq; END",
    ],
)
def test_a_trap_in_the_schema_is_refused(path: Path, trap: str) -> None:
    open_one = Ledger(path)
    write_sql(path, trap)
    with pytest.raises(LedgerError):
        reserved(Ledger(path), 8)
    with pytest.raises(LedgerError):
        reserved(open_one, 8)


def test_who_only_reads_disturbs_nobody_who_writes(path: Path) -> None:
    writer = os.getpid()
    reader = os.fork()
    if reader == 0:
        try:
            while os.getppid() == writer:
                Ledger(path)
        finally:
            os._exit(9)
    try:
        ledger = Ledger(path)
        for number in range(4, 24):
            reserved(ledger, number)
        assert os.waitpid(reader, os.WNOHANG) == (0, 0), "the reader was refused"
    finally:
        os.kill(reader, 9)
        os.waitpid(reader, 0)
    assert Ledger(path).steps == 5 * 23


def test_the_head_file_says_where_the_ledger_ends(path: Path) -> None:
    ledger = Ledger(path)
    assert json.loads(head_file(path).read_bytes()) == vars(ledger.head)


def test_a_refreshed_ledger_is_one_that_is_opened_again(path: Path) -> None:
    """A simulation opens each ledger once and refreshes it for every message."""
    kept, other = Ledger(path), Ledger(path)
    run_round(other, 8)
    run_round(other, 9)
    assert kept.head != other.head
    kept.refresh()
    known = kept._history
    assert history(path) == (
        known.head,
        known.budget,
        known.unit,
        known.rounds,
        known.released,
        known.spent,
    )
    for head in (kept.head, other.head):
        assert kept.holds(head.hash)
    assert not kept.holds("0" * 64)


def test_a_refreshed_ledger_notices_an_old_copy_and_another_file(
    path: Path, tmp_path: Path
) -> None:
    old, old_head = copies(path, tmp_path / "backup")
    kept, other = Ledger(path), Ledger(copies(path, tmp_path / "fork")[0])
    run_round(kept, 8)
    run_round(other, 9)
    lost = kept.head
    for file, head in ((old, old_head), (tmp_path / "fork" / path.name, other._file._head_file)):
        shutil.copy(file, path)
        shutil.copy(head, head_file(path))
        with pytest.raises(LedgerError, match="was seen before"):
            kept.refresh()
        assert not kept.holds(lost.hash)


def test_a_refresh_takes_no_entry_of_another_key(path: Path) -> None:
    kept = Ledger(path)
    forged = sign(
        {**LedgerFile(path).entries()[-1].fields}, kept.head, Ed25519PrivateKey.generate()
    )
    put_entries(path, [*LedgerFile(path).entries(), forged])
    with pytest.raises(LedgerError, match="not signed"):
        kept.refresh()
