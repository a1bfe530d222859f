"""A run's picture, whatever was scored."""

import warnings
from pathlib import Path

import pytest

from cloister.ledger.stated import of_plan
from cloister.server.plots import plot_run
from tests.support.ledgers import small_plan


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"round": 1}],
        [{"round": 1, "test": {"rouge_l": None}}],  # of conversations that are all cut
        [{"round": 1, "test": {"rouge_l": 0.5}}],
    ],
)
def test_a_picture_warns_of_nothing(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_run(rows, "rouge_l", "notes", {}, tmp_path / "metrics.png")
    assert (tmp_path / "metrics.png").stat().st_size > 0


@pytest.mark.parametrize("site", ["a$^$b", "$$", "中央医院", "St. Mary's_{1}^"])
def test_a_site_s_name_is_never_mathematics_nor_a_box(tmp_path: Path, site: str) -> None:
    promises = {site: of_plan(small_plan()), "b": of_plan(small_plan())}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_run([], "accuracy", "notes", promises, tmp_path / "metrics.png")
