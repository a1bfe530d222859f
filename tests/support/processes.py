"""Finds and ends all processes that a test started, including detached ones, by their ids."""

import contextlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

# A variable of the environment that children inherit, also those that leave their parent's session.
TAG = "CLOISTER_TEST_TAG"


def tagged(tag: str) -> list[psutil.Process]:
    """The running processes whose environment carries this tag."""
    found = []
    for process in psutil.process_iter():
        # A process that is gone, a zombie, or another user's shows no environment.
        with contextlib.suppress(psutil.Error):
            if process.environ().get(TAG) == tag:
                found.append(process)
    return found


@contextmanager
def family() -> Iterator[dict[str, str]]:
    """Variables for a command's environment; ends every process left of it at the end.

    Yields:
        To be added to the environment of whatever the block starts. Its children inherit it, so a
        daemon is found that a library detached, and a stranger's is not, whatever it is called.
    """
    tag = uuid.uuid4().hex
    try:
        yield {TAG: tag}
    finally:
        left = tagged(tag)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(left, timeout=60)
        for process in (*alive, *tagged(tag)):  # and what was started meanwhile
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
