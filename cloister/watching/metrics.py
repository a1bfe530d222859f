"""Writes a watch's figures in Prometheus's text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from cloister.watching.monitor import WatchPlan
from cloister.watching.state_file import State


def metrics_text(plan: WatchPlan, state: State) -> bytes:
    """Returns all figures in Prometheus's text format.

    Args:
        plan: The watch.
        state: The watch's state.
    """
    registry = CollectorRegistry()

    def gauge(name: str, words: str, *labels: str) -> Gauge:
        return Gauge(f"cloister_watch_{name}", words, ["watch", *labels], registry=registry)

    watch, one = plan.name, state.monitor
    gauge("rows", "Rows so far.").labels(watch).set(one.rows)
    refused = gauge("refused_lines", "Lines that were no rows.", "reason")
    for reason, lines in state.refused.by_reason.items():
        refused.labels(watch, reason).set(lines)
    gauge("windows", "Closed windows so far.").labels(watch).set(one.closed)
    psi = gauge("psi", "Population stability index of the last window.", "feature")
    p_value = gauge("drift_p", "The p-value of the last window's test.", "feature", "test")
    for figure in one.windows[-1].figures if one.windows else ():
        psi.labels(watch, figure.feature).set(figure.psi)
        if figure.p is not None:
            p_value.labels(watch, figure.feature, figure.test).set(figure.p)
    count = gauge("topic_count", "Answers that count, in the last window of time.", "topic")
    expected = gauge("topic_expected", "Of them, at the baseline's rate.", "topic")
    for surge in one.looks[-1].figures if one.looks else ():
        count.labels(watch, surge.topic).set(surge.count)
        expected.labels(watch, surge.topic).set(surge.expected)
    stands = gauge("alert_stands", "1 while an alert stands.", "condition")
    for key, condition in one.debounced.items():
        stands.labels(watch, key).set(condition.is_on)
    gauge("alerts_waiting", "Deliveries that wait.").labels(watch).set(len(state.outbox.waiting))
    delivered = gauge("alerts_delivered", "Alerts that arrived.", "address")
    for address, number in state.outbox.delivered.items():
        delivered.labels(watch, address).set(number)
    return generate_latest(registry)
