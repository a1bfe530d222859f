"""Writes a run's figures to metrics.jsonl and TensorBoard while it runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from cloister.canonical import json_number
from cloister.server.report import RoundReport, SetScores
from cloister.server.run_directory import RunDirectory
from cloister.strategies.strategy import ServerState


def metrics_row(report: RoundReport) -> dict[str, Any]:
    """A closed round as a line of metrics.jsonl; ∞ becomes null, because JSON cannot express it."""
    return {
        "round": report.round,
        **{name: _finite(scores) for name, scores in report.metrics.items()},
        "epsilon": _finite(report.epsilon),
        "received": {site: list(hashes) for site, hashes in report.received.items()},
        "bytes_up": report.bytes_up,
        "bytes_down": report.bytes_down,
        "seconds": round(report.seconds, 3),
        "seconds_scoring": round(report.seconds_scoring, 3),
        "missing": list(report.missing),
        "retired": list(report.retired),
        "refused": dict(report.refused),
        "update_norm": report.update_norm,
        "aggregation_error": report.aggregation_error,
    }


def complete_metrics(
    run: RunDirectory, state: ServerState, score: Callable[[ServerState], SetScores]
) -> bool:
    """Adds the last closed round's line, if a crash came between its saved state and its line.

    Without it nothing would say what each site sent, and a study that stops by scores would miss
    the round's.

    Args:
        run: The run's folder.
        state: Its last saved state.
        score: Returns the scores of a state; the line's figures are those from before the crash.

    Returns:
        Whether it was missing.
    """
    latest = run.path / "checkpoint" / "latest.json"
    if not latest.exists() or any(row["round"] == state.round for row in run.metrics()):
        return False
    row = json.loads(latest.read_text(encoding="utf-8")).get("row")  # none of earlier versions
    if row is None:
        return False
    scores = {name: _finite(found) for name, found in score(state).items()}
    run.append_metrics({**row, **scores})
    return True


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: json_number(value) for name, value in values.items()}


class TensorBoard:
    """Scalars of each round under the run directory's `tensorboard/`."""

    def __init__(self, run: RunDirectory) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.path / "tensorboard"))

    def add(self, report: RoundReport) -> None:
        """Writes the scalars of one round."""
        scalars = {
            f"{name}/{metric}": value
            for name, scores in report.metrics.items()
            for metric, value in scores.items()
        }
        scalars |= {f"promised_epsilon/{site}": value for site, value in report.epsilon.items()}
        scalars |= {"bytes/up": report.bytes_up, "update_norm": report.update_norm}
        if report.aggregation_error is not None:
            scalars["aggregation_error"] = report.aggregation_error
        for tag, value in scalars.items():
            if math.isfinite(value):
                self._writer.add_scalar(tag, value, report.round)
        self._writer.flush()
