"""Makes a watch's report as one JSON document, which the page and `--json` show."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from cloister.watching.alert import iso
from cloister.watching.drift import DriftFigure, WindowFigures, is_drift
from cloister.watching.setup import Watch
from cloister.watching.state_file import State
from cloister.watching.surges import Look


def report_of(watch: Watch, state: State) -> dict[str, Any]:
    """Returns the report of a watch as JSON values.

    Args:
        watch: The watch.
        state: The watch's state.
    """
    one, plan = state.monitor, watch.plan
    reference = plan.reference
    return {
        "version": 1,
        "watch": plan.name,
        "model": watch.model,
        "task": watch.kind,
        "rows": one.rows,
        "refused": {
            "lines": state.refused.count,
            "by_reason": dict(state.refused.by_reason),
            "first": [{"line": n, "reason": reason} for n, reason in state.refused.first],
        },
        "unfit": dict(watch.unfit),
        "drift": {
            "reference_rows": 0 if reference is None else reference.rows,
            "window_rows": plan.drift.window_rows,
            "windows": one.closed,
            "in_window": len(one.window),
            "stands": _standing(state, "drift:"),
            "last": [_window(watch, window) for window in one.windows],
        },
        "surges": {
            "window_seconds": plan.surges.window_seconds,
            "step_seconds": plan.surges.step_seconds,
            "topics": list(one.counts.topics),
            "late_rows": one.counts.late,
            "rows_beyond": one.counts.beyond,
            "warms_up": bool(plan.topics.configs) and not any(x.figures for x in one.looks[-1:]),
            "stands": _standing(state, "surge:"),
            "last": [_look(look) for look in one.looks if look.figures],
        },
        "alerts": [alert.to_json() for alert in one.alerts],
        "outbox": {
            "waiting": len(state.outbox.waiting),
            "delivered": dict(state.outbox.delivered),
            "dropped": state.outbox.dropped,
            "failing": {
                entry.address: entry.why for entry in state.outbox.waiting.values() if entry.why
            },
        },
    }


def _standing(state: State, prefix: str) -> list[str]:
    found = state.monitor.debounced.items()
    return sorted(
        key.removeprefix(prefix) for key, d in found if d.is_on and key.startswith(prefix)
    )


def _window(watch: Watch, window: WindowFigures) -> dict[str, Any]:
    def told(figure: DriftFigure) -> dict[str, Any]:
        return asdict(figure) | {"drifts": is_drift(figure, window.level, watch.plan.drift)}

    return {
        "number": window.number,
        "rows": window.rows,
        "first": iso(window.first),
        "last": iso(window.last),
        "level": window.level,
        "figures": [told(figure) for figure in window.figures],
    }


def _look(look: Look) -> dict[str, Any]:
    figures = [
        asdict(one) | {"ratio": one.ratio if math.isfinite(one.ratio) else None}
        for one in look.figures
    ]
    return {"at": iso(look.at), "figures": figures}
