"""The service as a process: it listens, exchanges its model on SIGHUP, and drains on SIGTERM."""

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

# Seconds that requests have to end after SIGTERM; systemd kills after 90.
DRAIN_SECONDS = 60
# Connections at one time, as many as the usual limit of open files leaves room for.
MOST_CONNECTIONS = 512


@dataclass(frozen=True)
class Settings:
    """How a service answers.

    Attributes:
        most_tokens: Tokens that are gathered for one pass of the network.
        most_waiting: Requests that wait; beyond them callers are told to come again.
        seconds: Longest until an answer begins.
        a_minute: Requests of one caller; None: as many as it likes.
        certificate: TLS certificate chain in PEM; None: not encrypted.
        key: Its private key.
    """

    most_tokens: int
    most_waiting: int
    seconds: float
    a_minute: int | None = None
    certificate: Path | None = None
    key: Path | None = None


class _DrainingServer(uvicorn.Server):
    """Leaves signals to us: uvicorn's own handler ends the process by the signal, not with 0."""

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
    """Serves until SIGTERM or SIGINT, and returns when every request that was taken is answered.

    SIGHUP loads what stands at the model's folder now, in a thread of its own, and serves it from
    the next batch on.

    Args:
        served: The version of the model.
        callers: Who may ask.
        settings: How it answers.
        place: A socket that listens.
        say: Tells the operator what happens.
        library: Documents that a chat answers from; None: it has none.
        desk: Takes feedback; None: none is taken.

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
        say("… ends when the requests that were taken are answered")
        server.should_exit = True

    def exchange() -> None:
        try:
            version = served.exchange()
        except CloisterError as error:
            figures.exchange("failed")
            say(f"not exchanged, the version before is served on: {error}")
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
