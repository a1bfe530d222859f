"""What the watch shows to other threads, replaced as a whole."""

from __future__ import annotations

import threading


class Shown:
    """What the HTTP thread shows: the main loop replaces it as a whole.

    Attributes:
        metrics: In Prometheus's format.
        page: HTML.
        report: JSON.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.metrics, self.page, self.report = b"", b"", b"{}"

    def replace(self, metrics: bytes, page: bytes, report: bytes) -> None:
        """Shows something else from now on."""
        with self._lock:
            self.metrics, self.page, self.report = metrics, page, report

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Metrics, page and report, of one moment."""
        with self._lock:
            return self.metrics, self.page, self.report
