"""The number of a record's copies changes no answer of a deployed site, nor its time."""

from pathlib import Path

import pytest

from cloister.data.unit_column import UNIT
from cloister.protocol.exchange import Status
from tests.support.models import tiny_bert
from tests.support.neighbours import notes, study
from tests.support.wards import Ward


def test_no_answer_depends_on_how_many_copies_records_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bert = tiny_bert(tmp_path / "base")
    recipe = study(bert, "privacy.max_rows_per_record=3")
    # So many records that a round's time with copies exceeds a period that is measured without.
    rows = [
        {**row, "text": "pain " * 120, UNIT: f"{n} {t}"}
        for t in range(9)
        for n, row in enumerate(notes())
    ]
    first = Ward.open(tmp_path / "0", rows, bert, monkeypatch)
    plain = first.life(recipe)
    assert plain[1].said[2] is Status.TRAINED
    other = Ward.open(tmp_path / "1", rows * 9, bert, monkeypatch, proofs=first.proofs)
    assert other.life(recipe) == plain
