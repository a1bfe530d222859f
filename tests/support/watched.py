"""Streams of predictions and watch files for the tests of `cloister.watching`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloister.watching.config import DriftConfig, SurgesConfig, TopicConfig
from cloister.watching.monitor import MonitorState, WatchPlan
from cloister.watching.parsing import RowForm
from cloister.watching.reference import make_reference
from cloister.watching.row import Features, StreamRow
from cloister.watching.surges import no_counts
from cloister.watching.topics import make_topics

LABELS = ("negative", "neutral", "positive")
# The streams' first moment: 2026-01-05, a Monday.
START = 1_767_571_200.0
HOUR = 3600.0


def form(kind: Any = "sequence-classification", **changes: Any) -> RowForm:
    """The form of a stream of news."""
    labels = frozenset(LABELS) if kind == "sequence-classification" else frozenset()
    given = {"time": "at", "cells": ("company",), "labels": labels, **changes}
    return RowForm(
        kind, given["labels"], "text", given["time"], "embedding", given["cells"], ("no",)
    )


def classified(rng: np.random.Generator, negative: float = 0.2, **columns: Any) -> dict[str, Any]:
    """A prediction, and columns beside it."""
    label = str(rng.choice(LABELS, p=[negative, 0.5 - negative / 2, 0.5 - negative / 2]))
    share = float(0.5 + 0.5 * rng.random())
    shares = {one: share if one == label else (1 - share) / 2 for one in LABELS}
    return {"label": label, "probabilities": shares, "is_cut": False, **columns}


def row(label: str, at: float = START, company: str = "Acme", text: str | None = None) -> StreamRow:
    """A row as the parser makes it."""
    features = Features({"label": label, "cut": "whole"}, None, {})
    return StreamRow(features, frozenset({label}), None, text, {"company": company}, at)


SURGES = SurgesConfig(
    step_seconds=HOUR, window_seconds=2 * HOUR, baseline_seconds=48 * HOUR, horizon=100
)


def plan(
    reference: Sequence[StreamRow] = (),
    *,
    drift: DriftConfig | None = None,
    surges: SurgesConfig = SURGES,
    topics: dict[str, TopicConfig] | None = None,
) -> WatchPlan:
    """A plan that watches negative rows of each company, unless topics are given."""
    drift = drift or DriftConfig(window_rows=100)
    named = {"company": TopicConfig(column="company", answers=("negative",))}
    against = make_reference(reference, drift.projections, drift.seed) if reference else None
    return WatchPlan(
        "news", drift, surges, make_topics(named if topics is None else topics), against
    )


def empty(of: WatchPlan) -> MonitorState:
    """The state before the first row."""
    names = tuple(n for n, one in of.topics.configs.items() if one.column is None)
    return MonitorState(no_counts(names, of.surges))


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Writes JSON lines."""
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def write_watch(folder: Path, more: str = "", **source: str) -> Path:
    """A watch file over `stream.jsonl` and `reference.jsonl`, with topics and an alert file."""
    path = folder / "watch.toml"
    of = source.get("source", 'file = "stream.jsonl"\ntime = "at"')
    path.write_text(
        f"""
[watch]
name = "news"
folder = "news.watch"
[source]
{of}
[reference]
file = "reference.jsonl"
[drift]
window_rows = 100
[surges]
step_seconds = 3600
window_seconds = 7200
baseline_seconds = 172800
horizon = 100
[topics.company]
column = "company"
answers = ["negative"]
[alerts]
file = "alerts.jsonl"
{more}
"""
    )
    return path


def news(
    rng: np.random.Generator, hours: int, a_hour: int = 10, surges: Sequence[tuple[int, int]] = ()
) -> list[dict[str, Any]]:
    """A stream of news; in the hours of a surge four in five are negative."""
    rows = []
    for hour in range(hours):
        share = 0.8 if any(first <= hour < last for first, last in surges) else 0.1
        for n in range(a_hour):
            at = START + HOUR * (hour + n / a_hour)
            rows.append(classified(rng, share, at=at, company="Acme", text="Acme made news"))
    return rows
