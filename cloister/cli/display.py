"""Progress of a running study: a row for each round, a bar within it, a summary."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cloister.cli.terminal import Terminal
from cloister.ledger.stated import shown
from cloister.privacy.estimated_scores import delivered
from cloister.recipe import Recipe

if TYPE_CHECKING:  # they load what a refusal does not need
    from cloister.server.report import RoundReport, SetScores
    from cloister.simulation.result import RunResult

# Number of closed rounds for the mean time, from which the remaining time is estimated.
TIMED = 5
# Most rows shown; metrics.jsonl has all.
SHOWN = 15

# The stage in which the run without privacy begins, with a table of its own
# (`simulation.twin.STAGE`, whose module loads torch).
TWIN = "the same study without privacy, untuned"
# Names of the baseline with one constant answer, for tasks whose answer is not a label.
SAME = {
    "multi-label-classification": "same labels always",
    "recommendation": "same items to all",
}


class Display:
    """Shows a running study on stderr: live on a terminal, else a line for each round.

    Args:
        recipe: The study.
        closed_rounds: Number of rounds that an earlier process closed.
        is_verbose: Whether to show each stage's time and each round's norms too.
    """

    def __init__(self, recipe: Recipe, closed_rounds: int = 0, *, is_verbose: bool = False) -> None:
        self._is_verbose = is_verbose
        self._started = time.monotonic()
        self._console = Terminal(stderr=True)
        self._recipe = recipe
        self._steps = recipe.data.sites * recipe.training.local_steps
        self._reports: list[RoundReport] = []
        self._untrained: SetScores | None = None
        self._stage = ""
        self.closed_rounds = closed_rounds
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("local steps"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=self._steps, visible=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
            if self._reports:
                self._console.print(self._table())

    def on_stage(self, text: str) -> None:
        """Shows which stage of the run begins."""
        if text == TWIN:
            if self._console.is_terminal:
                self._console.print(self._table())
            self._reports, self._untrained, self.closed_rounds = [], None, 0
        self._stage = text
        if self._is_verbose:
            self.note(f"{time.monotonic() - self._started:7.1f} s  {text}")
        self._bar.update(self._task, visible=text == "training", description="round 1", completed=0)
        if self._console.is_terminal:
            self._draw()
        else:
            self._console.print(f"… {text}", highlight=False)
            if text == "training":
                self._console.print("  ".join(self._columns()), highlight=False, soft_wrap=True)

    def on_step(self) -> None:
        """Moves the bar on by one local step of a site."""
        self._bar.advance(self._task)

    def on_untrained(self, scores: SetScores) -> None:
        """Prints the row of round 0: what the adapter scores before it is trained."""
        self._untrained = scores
        if self._console.is_terminal:
            self._draw()
        else:
            cells = self._untrained_cells(scores)
            self._console.print("  ".join(cells), highlight=False, soft_wrap=True)

    def on_round(self, report: RoundReport) -> None:
        """Prints the row of a closed round."""
        self._reports.append(report)
        self.closed_rounds = report.round
        left = time_left(self._reports, self._recipe.federation.num_rounds)
        following = f"round {report.round + 1}" + (f", {left}" if left else "")
        self._bar.update(self._task, completed=0, description=following)
        if self._console.is_terminal:
            self._draw()
        else:
            cells = [*self._cells(report), *([left] if left else [])]
            self._console.print("  ".join(cells), highlight=False, soft_wrap=True)
        if self._is_verbose:
            self.note(round_details(report))

    def warn(self, note: str) -> None:
        """Prints a warning to the terminal's error stream."""
        self._console.print(f"[yellow]warning:[/] {escape(note)}", markup=True, soft_wrap=True)

    def note(self, text: str) -> None:
        """Prints a line above the rounds, where it stays visible."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def summary(self, result: RunResult) -> None:
        """Prints the final scores, ε, and the paths of all results."""
        score = result.test.get(result.metric)
        shown = "no public test set" if score is None else f"[bold]{score:.4f}[/]"
        lines = [(f"test {result.metric}", shown)]
        if result.personal_test is not None:
            own = result.personal_test[result.metric]
            lines.append(("sites' own adapters", f"{own:.4f} (mean)"))
        if result.plain_test is not None:
            lines.append(("no privacy, untuned", f"{result.plain_test[result.metric]:.4f}"))
        if result.majority is not None:
            said = SAME.get(result.task, "most frequent label")
            lines.append((said, f"{result.majority:.4f}"))
        untrained = result.untrained.get(result.metric)
        if untrained is not None:
            lines.append(("before training", f"{untrained:.4f}"))
        if result.old_test is not None:
            before, after = (
                scores.get(result.metric)
                for scores in (result.old_test.before, result.old_test.after)
            )
            lines.append(("older test set", f"{shown_score(before)} → {shown_score(after)}"))
        if result.began is not None:
            lines.append(
                (
                    "began with",
                    f"{escape(result.began.run)}; ε covers both studies where a site was in both",
                )
            )
        estimate = delivered(result.private_evaluations, result.selected)
        if estimate is not None:
            lines.append(("private evaluation", str(estimate)))
        if result.selected is not None:
            lines.append(("selected", str(result.selected)))
        if result.lexical:
            lines.append(("TF-IDF", f"{result.lexical[result.metric]:.4f}"))
        lines += [
            ("privacy", self._promise(result)),
            ("each update", f"{result.bytes_per_update:,} bytes"),
            ("time", f"{result.seconds:.0f} s"),
            ("adapter and card", escape(f"{result.run_dir}/adapter/")),
            ("figures, plot", escape(f"{result.run_dir}/metrics.jsonl, metrics.png")),
            ("ledgers", escape(f"{result.run_dir}/ledgers/")),
        ]
        for name, value in lines:
            self._console.print(f"{name:<22}{value}", markup=True, soft_wrap=True)

    def _promise(self, result: RunResult) -> str:
        worst = max((site.promise for site in result.sites), key=lambda one: one.epsilon)
        if not math.isfinite(worst.epsilon):
            return "none: ε = ∞"
        return str(worst)

    def _draw(self) -> None:
        has_rows = self._reports or self._untrained is not None
        parts: list[object] = [self._table()] if has_rows else []
        parts.append(self._bar if self._stage == "training" else f"… {self._stage}")
        self._live.update(Group(*parts), refresh=True)  # type: ignore[arg-type]

    def _columns(self) -> tuple[str, ...]:
        privacy = self._recipe.privacy
        # A simulated budget's δ is twice its plan's; it is the promise's δ if a site's budget is
        # below the plan's cost.
        has_budget = privacy.site_budgets or self._recipe.study.start is not None
        delta = f"≤ {2 * privacy.delta:g}" if has_budget else f"= {privacy.delta:g}"
        promised = f"ε promised, by site (one {privacy.unit}, add/remove, δ {delta})"
        return "round", "test", promised, "sent", "seconds"

    def _table(self) -> Table:
        table = Table(box=None, header_style="bold")
        for name in self._columns():
            table.add_column(name, justify="left" if name.startswith("ε") else "right")
        if self._untrained is not None:
            table.add_row(*self._untrained_cells(self._untrained))
        if len(self._reports) > SHOWN:
            table.add_row(f"… {len(self._reports) - SHOWN} more", "", "", "", "")
        for report in self._reports[-SHOWN:]:
            table.add_row(*self._cells(report))
        return table

    def _untrained_cells(self, scores: SetScores) -> tuple[str, ...]:
        rounds = self._recipe.federation.num_rounds
        begun = "untrained" if self._recipe.study.start is None else "as it began"
        return f"0/{rounds}", score_cell(scores), begun, "–", "–"

    def _cells(self, report: RoundReport) -> tuple[str, ...]:
        missing = f", without {', '.join(report.missing)}" if report.missing else ""
        if report.retired:
            missing += f", budget spent at {', '.join(report.retired)}"
        return (
            f"{report.round}/{self._recipe.federation.num_rounds}",
            score_cell(report.metrics),
            epsilon_cell(dict(report.epsilon)) + missing,
            f"{(report.bytes_up + report.bytes_down) / 1e6:.2f} MB",
            f"{report.seconds:.1f}",
        )


def shown_score(value: float | None) -> str:
    """Formats a score; a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


def score_cell(scores: SetScores) -> str:
    """Formats the test score of a row; a dash if the round was not scored."""
    test = scores.get("test", {})
    known = (m for m in ("accuracy", "f1", "perplexity", *test) if m in test)
    name = next(known, None)  # a plug-in's task: its first metric
    return f"{name} {test[name]:.4f}" if name else "–"


def time_left(reports: Sequence[RoundReport], num_rounds: int) -> str:
    """Estimates the remaining time in words, from the last closed rounds.

    Args:
        reports: Closed rounds of this process, oldest first. The first is ignored if there are
            others, because it fills caches.
        num_rounds: Rounds of the study.

    Returns:
        Empty if no round is left, or none was closed yet.
    """
    timed = (reports[1:] or reports)[-TIMED:]
    if not timed or reports[-1].round >= num_rounds:
        return ""
    mean = sum(one.seconds for one in timed) / len(timed)
    seconds = mean * (num_rounds - reports[-1].round)
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min left"
    return f"about {seconds / 3600:.1f} h left"


def round_details(report: RoundReport) -> str:
    """Formats the line that `--verbose` adds for a closed round."""
    norm = "–" if report.update_norm is None else f"{report.update_norm:.4g}"
    error = "–" if report.aggregation_error is None else f"{report.aggregation_error:.3g}"
    return (
        f"  round {report.round}: update norm {norm}, aggregation error {error}, "
        f"{report.bytes_up:,} bytes up, {report.bytes_down:,} down, scoring "
        f"{report.seconds_scoring:.1f} s"
    )


def epsilon_cell(epsilon: dict[str, float]) -> str:
    """Formats the ε of the sites; sites of equal ε share an entry."""
    if not epsilon:
        return "–"
    values = sorted({shown(value, 2) for value in epsilon.values()})
    if len(values) == 1:
        return f"{values[0]} at each of {len(epsilon)}" if len(epsilon) > 1 else values[0]
    return ", ".join(f"{site} {shown(value, 2)}" for site, value in sorted(epsilon.items()))
