"""Counts requests for Prometheus; no text of a question or an answer is kept.

Labels are routes and statuses only, so their number is bounded. Callers' names appear in the
service's log and not here.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# Upper bounds of the histogram, in seconds: a short text on a GPU to a long reply on a CPU.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# Upper bounds for requests per batch: powers of two, up to the default length of the queue.
TOGETHER = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Figures:
    """Counters of one service, in a registry of its own.

    Args:
        waiting: Returns the number of requests that wait now.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cloister_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "cloister_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._together = Histogram(
            "cloister_batch_requests",
            "Requests that one pass answered.",
            buckets=TOGETHER,
            registry=self._registry,
        )
        self._tokens = Counter(
            "cloister_tokens",
            "Tokens of inputs and of replies, inputs estimated from above.",
            ["of"],
            registry=self._registry,
        )
        self._exchanges = Counter(
            "cloister_exchanges",
            "Exchanges of the model by outcome.",
            ["outcome"],
            registry=self._registry,
        )
        gauge = Gauge("cloister_waiting", "Requests that wait now.", registry=self._registry)
        gauge.set_function(waiting)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a finished request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, requests: int, tokens: int) -> None:
        """Counts a pass of the network."""
        self._together.observe(requests)
        self._tokens.labels("inputs").inc(tokens)

    def reply(self, prompt_tokens: int, reply_tokens: int) -> None:
        """Counts a reply, and the tokens of its prompt and of its text."""
        self._tokens.labels("inputs").inc(prompt_tokens)
        self._tokens.labels("replies").inc(reply_tokens)

    def exchange(self, outcome: str) -> None:
        """Counts an attempt to load another version of the model: `done` or `failed`."""
        self._exchanges.labels(outcome).inc()

    def text(self) -> bytes:
        """Returns all counters in Prometheus's text format."""
        return generate_latest(self._registry)
