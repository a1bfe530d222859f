"""A request to stop may come from a signal's handler at any moment."""

import os
import signal
import threading
from pathlib import Path
from queue import Empty

import pytest

from cloister.stopping import Stop


def test_a_set_flag_stays_set_and_wakes_every_thread_that_waits() -> None:
    stop = Stop()
    assert not stop.wait(0.0)
    told: list[bool] = []
    waiting = [threading.Thread(target=lambda: told.append(stop.wait(60.0))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    stop.set()
    for thread in waiting:
        thread.join()
    assert told == [True] * 3
    assert stop.is_set()
    assert stop.wait(0.0)


def test_a_handler_may_set_it_inside_of_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # Signals arrive wherever the wait's own Python code is: at its start, in its handler of Empty,
    # and inside of another set. An Event, set in this way, waits for its own lock for ever.
    stop = Stop()
    real = stop._woken.get

    class Interrupted:
        def get(self, timeout: float) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            try:
                return real(timeout=timeout)
            except Empty:
                os.kill(os.getpid(), signal.SIGUSR1)
                raise

        def put(self, item: None) -> None:
            real_put(item)
            if len(puts) < 5:
                puts.append(1)
                os.kill(os.getpid(), signal.SIGUSR1)

    puts: list[int] = []
    real_put = stop._woken.put
    monkeypatch.setattr(stop, "_woken", Interrupted())
    before = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    try:
        assert stop.wait(60.0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert puts


PACKAGE = Path(__file__).parents[1] / "cloister"


def test_no_signal_s_handler_sets_an_event() -> None:
    handled = {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
        if "signal.signal(" in path.read_text(encoding="utf-8")
    }
    assert {"deployment/processes.py", "cli/model_watch.py"} <= handled.keys()
    for name, text in handled.items():
        assert "threading.Event" not in text, name
