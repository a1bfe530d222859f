"""A run's picture, whatever was scored."""

import warnings
from pathlib import Path

import pytest

from cloister.server.plots import plot_run


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
