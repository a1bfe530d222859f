"""The picture of each class's scores: which classes, in which order, with which lengths."""

import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from cloister.server.class_plot import MOST, lowest, plot_classes

SCORES = {
    "good": {"precision": 0.75, "recall": 0.9, "f1": 0.8182, "support": 30.0},
    "bad": {"precision": 0.5, "recall": 0.25, "f1": 0.3333, "support": 12.0},
    "absent": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0},
}


def test_bars_are_the_scores_lowest_first_and_a_class_without_a_record_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    assert plot_classes(SCORES, "notes", tmp_path / "classes.png")
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bad (12)", "good (30)"]
    drawn = {
        str(bars.get_label()): [bar.get_width() for bar in bars]  # type: ignore[attr-defined]
        for bars in axes.containers
    }
    assert drawn == {"precision": [0.5, 0.75], "recall": [0.25, 0.9], "f1": [0.3333, 0.8182]}
    assert axes.yaxis.get_inverted()  # the first row is at the top


def test_of_many_classes_those_of_the_lowest_f1_are_drawn() -> None:
    many = {f"c{n:03d}": {"precision": 1.0, "recall": 1.0, "f1": 1 - n / 100} for n in range(90)}
    assert lowest(many) == [f"c{n:03d}" for n in range(89, 89 - MOST, -1)]


def test_scores_without_f1_are_not_drawn(tmp_path: Path) -> None:
    grades = {"3": {"mean_prediction": 2.8, "mae": 0.4, "support": 9.0}}
    assert not plot_classes(grades, "essays", tmp_path / "classes.png")
    assert not plot_classes({}, "chat", tmp_path / "classes.png")
    assert not list(tmp_path.iterdir())


def test_a_name_is_never_mathematics_nor_a_box_nor_too_long(tmp_path: Path) -> None:
    names = ["a$^$b", "心内科", "x" * 500]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plot_classes(dict.fromkeys(names, SCORES["bad"]), "$$", tmp_path / "classes.png")
    assert (tmp_path / "classes.png").read_bytes().startswith(b"\x89PNG")
