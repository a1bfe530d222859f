"""Holds the documents that the watch shows to other threads."""

from __future__ import annotations

import threading


class Shown:
    """The documents that the HTTP thread shows; the main loop replaces all of them at once.

    Attributes:
        metrics: The metrics in Prometheus's format.
        page: The page as HTML.
        report: The report as JSON.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.metrics, self.page, self.report = b"", b"", b"{}"

    def replace(self, metrics: bytes, page: bytes, report: bytes) -> None:
        """Replaces all documents."""
        with self._lock:
            self.metrics, self.page, self.report = metrics, page, report

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Returns metrics, page and report, all from the same moment."""
        with self._lock:
            return self.metrics, self.page, self.report
