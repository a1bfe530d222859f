"""Logs of long-lived processes: one JSON object per line, without anything from a record.

An unexpected error's text may quote a record, so only its type and place are written. Reasons of
refusals are for the site's operator (`cloister site status`), not for logs that may be collected.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog


def log_json(part: str) -> None:
    """Sets this process's logs up, on stderr.

    Args:
        part: Name of this process in a deployment.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        without_error_text,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, lambda logger, name, event: {**event, "part": part}],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("text"),
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "transformers", "datasets", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Flower prints a second copy by a handler of its own, as plain text.
    logging.getLogger("flwr").handlers.clear()
    # The default hook prints an exception's message, which may quote a record; log its type only.
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, None)
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, None)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, place: Any) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    info = (kind, error, error.__traceback__) if error else None
    logging.getLogger(__name__).critical("an uncaught error", exc_info=info)


def without_error_text(
    logger: Any, name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replaces an exception by its type and stack."""
    found = event.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        event["error"] = type(error).__name__
        # asyncio's line shows the task, and the task its error.
        if event.get("logger") == "asyncio" or (str(error) and str(error) in str(event["event"])):
            event["event"] = "an error; its text is left out"
        event["at"] = [f"{frame.filename}:{frame.lineno}" for frame in frames[-5:]]
    return event
