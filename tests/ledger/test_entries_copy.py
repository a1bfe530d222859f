"""A copy without the bytes of releases says what its ledger says, and can release nothing."""

from pathlib import Path

import pytest

from cloister.errors import LedgerError
from cloister.ledger.entries_copy import EntriesCopy
from cloister.ledger.ledger import Ledger
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from tests.support.ledgers import new_ledger, run_round


def written(copy: EntriesCopy, folder: Path) -> Path:
    folder.mkdir()
    path = folder / "copy.ledger"
    path.write_bytes(copy.content())
    (folder / "copy.ledger.head").write_bytes(copy.head_content())
    return path


def test_a_copy_follows_its_ledger_and_is_verified_like_it(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path / "a.ledger")
    copy = EntriesCopy(tmp_path / "a.ledger")
    assert copy.follow().seq == 0
    run_round(ledger, 1)
    assert copy.follow() == Ledger(tmp_path / "a.ledger").head
    run_round(ledger, 2)
    copy.follow()
    path = written(copy, tmp_path / "copy")
    entries = LedgerFile(tmp_path / "a.ledger").entries()
    assert LedgerFile(path).entries() == entries
    assert verify(entries, "a") == verify(LedgerFile(path).entries(), "a")


def test_a_copy_has_no_bytes_of_a_release_and_no_key(tmp_path: Path) -> None:
    run_round(new_ledger(tmp_path / "a.ledger"), 1)
    copy = EntriesCopy(tmp_path / "a.ledger")
    copy.follow()
    path = written(copy, tmp_path / "copy")
    assert next(LedgerFile(tmp_path / "a.ledger").payloads())[1] == b"bytes 1"
    assert list(LedgerFile(path).payloads()) == []
    assert b"bytes 1" not in path.read_bytes()
    with pytest.raises(LedgerError, match="key"):
        Ledger(path)


def test_a_ledger_that_was_rolled_back_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.ledger"
    run_round(new_ledger(path), 1)
    copy = EntriesCopy(path)
    copy.follow()
    path.unlink()
    with pytest.raises(LedgerError, match="no ledger here"):
        copy.follow()
