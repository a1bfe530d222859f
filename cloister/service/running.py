"""Runs the service as a process: SIGHUP loads another version, SIGTERM finishes and ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import uvicorn

from cloister.errors import CloisterError
from cloister.service.app import Service, make_app
from cloister.service.batching import Batcher
from cloister.service.callers import CallerRates, Callers
from cloister.service.feedback_desk import FeedbackDesk
from cloister.service.figures import Figures
from cloister.service.library import Library
from cloister.service.timed_connection import TimedConnection
from cloister.service.versions import Served

# Seconds that running requests may take after SIGTERM; systemd kills the process after 90.
DRAIN_SECONDS = 60
# Most connections at one time: below the usual limit of open files (1,024).
MOST_CONNECTIONS = 512


@dataclass(frozen=True)
class Settings:
    """The limits and the TLS files of a service.

    Attributes:
        most_tokens: Most tokens in one batch.
        most_waiting: Most requests that may wait; further ones are refused with status 429.
        seconds: Time limit until an answer begins.
        a_minute: Requests that one caller may send per minute; None: no limit.
        certificate: TLS certificate chain in PEM; None: the service speaks plain HTTP.
        key: The private key of the certificate.
    """

    most_tokens: int
    most_waiting: int
    seconds: float
    a_minute: int | None = None
    certificate: Path | None = None
    key: Path | None = None


class _DrainingServer(uvicorn.Server):
    """Does not install uvicorn's signal handlers: with them the process would not exit with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run_service(
    served: Served,
    callers: Callers,
    settings: Settings,
    place: socket,
    say: Callable[[str], None],
    library: Library | None = None,
    desk: FeedbackDesk | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; returns when every accepted request is answered.

    SIGHUP loads the model from its folder again, in a separate thread, and serves it from the
    next batch on.

    Args:
        served: Holds the version of the model that answers.
        callers: The callers that are known.
        settings: Limits and TLS files.
        place: A listening socket.
        say: Called with messages for the operator.
        library: The documents that a chat answers from; None: there are none.
        desk: Stores feedback; None: the service stores none.

    Raises:
        OSError: The certificate or its key cannot be read.
    """
    asyncio.run(_run(served, callers, settings, place, say, library, desk))


async def _run(
    served: Served,
    callers: Callers,
    settings: Settings,
    place: socket,
    say: Callable[[str], None],
    library: Library | None,
    desk: FeedbackDesk | None,
) -> None:
    figures = Figures(lambda: batcher.waiting)
    batcher = Batcher(served, settings.most_tokens, settings.most_waiting, figures.batch)
    service = Service(served, batcher, figures, settings.seconds, library, desk)
    rates = CallerRates(settings.a_minute, time.monotonic)
    app = make_app(service, callers, rates)
    config = uvicorn.Config(
        app,
        http=TimedConnection,
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=DRAIN_SECONDS,
        limit_concurrency=MOST_CONNECTIONS,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        lifespan="off",
        ws="none",
    )
    server = _DrainingServer(config)

    def end() -> None:
        say("… shutting down when all accepted requests are answered")
        server.should_exit = True

    def exchange() -> None:
        try:
            version = served.exchange()
        except CloisterError as error:
            figures.exchange("failed")
            say(f"the new version was not loaded, the old one stays in service: {error}")
        else:
            figures.exchange("done")
            say(f"serves version {version.digest} now")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(
        signal.SIGHUP, lambda: threading.Thread(target=exchange, daemon=True).start()
    )
    try:
        await server.serve(sockets=[place])
    finally:
        await asyncio.to_thread(batcher.close)
        say(f"{app.answered} requests were answered")
