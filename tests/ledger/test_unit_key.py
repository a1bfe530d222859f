"""A data set's key for its units: made once, for its owner only, and never in a text."""

from pathlib import Path

import pytest

from cloister.errors import LedgerError
from cloister.ledger.unit_key import BYTES, unit_key, unit_key_file


def test_the_key_is_made_once_and_is_its_owner_s(tmp_path: Path) -> None:
    ledger = tmp_path / "east.ledger"
    first = unit_key(ledger)
    assert unit_key(ledger) == first
    assert len(first.secret) == BYTES
    assert unit_key_file(ledger).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["east.ledger.units.key"]
    assert unit_key(tmp_path / "west.ledger") != first


def test_no_text_of_it_has_its_value(tmp_path: Path) -> None:
    key = unit_key(tmp_path / "east.ledger")
    assert key.secret.hex()[:8] not in repr(key) + str(key) + key.fingerprint


@pytest.mark.parametrize("content", [b"", b"00" * 31, b"00" * 33, b"zz" * 32, b"\xff" * 64])
def test_a_damaged_key_is_refused_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    ledger = tmp_path / "east.ledger"
    unit_key_file(ledger).write_bytes(content)
    with pytest.raises(LedgerError, match="restore it from a backup"):
        unit_key(ledger)
    assert unit_key_file(ledger).read_bytes() == content


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be read or written"):
        unit_key(tmp_path / "missing" / "east.ledger")
