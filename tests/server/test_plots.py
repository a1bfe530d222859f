"""A run's plots are drawn for every kind of scores."""

import warnings
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from cloister.evidence.report_plots import spending_plot
from cloister.evidence.spending_series import series_of
from cloister.ledger.budget import Budget
from cloister.ledger.replay import charged_rounds
from cloister.ledger.stated import of_plan
from cloister.ledger.storage import LedgerFile
from cloister.ledger.verify import verify
from cloister.server import plots
from cloister.server.plots import plot_run
from tests.support.ledgers import new_ledger, run_round, small_plan


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


def test_epsilon_over_rounds_is_the_line_that_a_report_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ward.ledger"
    ledger = new_ledger(path, Budget(epsilon=5.0, delta=2e-5))
    for number in (1, 2, 3):
        run_round(ledger, number)
    entries = LedgerFile(path).entries()
    verdict = verify(entries, "ward")
    rounds = charged_rounds(entries, verdict.history)
    series = [series_of("ward", rounds, None, verdict.budget_epsilon)]
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    plots.plot_run([], "accuracy", "notes", {}, tmp_path / "metrics.png", series)
    plots.plot_run([], "accuracy", "notes", {}, tmp_path / "metrics.png")
    with_ledgers, without = figures
    assert (len(with_ledgers.axes), len(without.axes)) == (3, 2)
    (report,) = spending_plot(series).axes
    ours, theirs = (axes.get_lines()[0].get_xydata() for axes in (with_ledgers.axes[1], report))
    assert ours.tolist() == theirs.tolist()  # type: ignore[union-attr]
    assert len(ours) == 4  # type: ignore[arg-type]
