"""False alarms and detections of `model watch` on drawn histories: `python -m benchmarks.watch`.

A history has 31 days of one topic with four answers an hour that count, and the watch file's own
defaults. Calm ones have no event. Others have one on day 20: for six hours so many times as much.
Clumped counts are negative binomial, with a variance of three times their mean: copied news.
"""

from __future__ import annotations

import argparse

import numpy as np

from cloister.watching.config import DriftConfig, SurgesConfig, TopicConfig
from cloister.watching.history_events import TrueEvent
from cloister.watching.monitor import MonitorState, WatchPlan, observe
from cloister.watching.rates import poisson_interval
from cloister.watching.replayed_history import median, tally
from cloister.watching.row import Features, StreamRow
from cloister.watching.surges import no_counts
from cloister.watching.topics import make_topics

DAYS, STEP, RATE = 31, 900.0, 1.0
# Day, and hours, of the event.
DAY, HOURS = 20, 6
ROW = StreamRow(Features({}, None, {}), frozenset({"negative"}))


def history(rng: np.random.Generator, times: float, *, clumped: bool) -> list[float]:
    """Times of rows, in seconds."""
    found: list[float] = []
    for step in range(int(DAYS * 86_400 / STEP)):
        hour = step * STEP / 3600 - DAY * 24
        mean = RATE * (times if 0 <= hour < HOURS else 1.0)
        # Of r successes with p = 1/3 the mean is 2 r and the variance 6 r.
        count = rng.negative_binomial(mean / 2, 1 / 3) if clumped else rng.poisson(mean)
        found += sorted(STEP * (step + rng.random(count)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=12)
    count = parser.parse_args().histories
    surges, topics = SurgesConfig(), {"news": TopicConfig(answers=("negative",))}
    plan = WatchPlan("news", DriftConfig(), surges, make_topics(topics), None)
    for clumped in (False, True):
        for times in (1.0, 3.0, 5.0, 10.0):
            detected = false = 0
            delays: list[float] = []
            for seed in range(count):
                rng = np.random.default_rng([seed, int(times), clumped])
                rows = [(at, ROW) for at in history(rng, times, clumped=clumped)]
                _, alerts = observe(plan, MonitorState(no_counts(("news",), surges)), rows)
                start = DAY * 86_400.0
                events = [TrueEvent("surge", "news", start, start + HOURS * 3600)] * (times > 1)
                found = tally("surge", alerts, events, (0.0, DAYS * 86_400.0), 3600.0)
                detected, false = detected + found.detected, false + found.false_alarms
                delays += found.delays
            middle = median(sorted(delays))
            late = "–" if middle is None else f"{middle.value / 60:.0f} min"
            low, high = poisson_interval(false, count)
            print(
                f"{'clumped' if clumped else 'Poisson'} ×{times:g}: detected {detected} of "
                f"{count * (times > 1)}, delay {late}; {false} false alarms in {count} months "
                f"({false / count:.2f} a month, {low:.2f} to {high:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
