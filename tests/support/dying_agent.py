"""A site's service whose agent kills itself, or hangs, once at each of some named points.

python -m tests.support.dying_agent cloister-service SITE.TOML POINT…

A file beside `site.toml` says that it died at a point; while that file holds `LATER`, the agent
lives, and is ready to die there as soon as somebody removes the file. At `held` it waits in round
2, after its charge, for as long as the file is there. The service itself loads no torch, as the one
that it stands for; only processes whose command names cloister are its children.
"""

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloister.client.site_file import read_site
from cloister.deployment.site.service import SiteService

TASKS, LEDGER = "cloister.deployment.flower.flower_tasks", "cloister.ledger.ledger"
# What an agent does in a round, in order; it dies right before or after, or does nothing more.
POINTS: dict[str, tuple[str, str, str]] = {
    "claimed": (TASKS, "Executor.claim", "after"),
    "message taken": (TASKS, "FlowerTask.message", "after"),
    "charged": (LEDGER, "Ledger.reserve", "after"),
    "training": ("cloister.client.round", "local_update", "before"),
    "hung": ("cloister.client.round", "local_update", "hang"),
    "held": ("cloister.client.round", "local_update", "hold"),
    "trained": (LEDGER, "Reservation.release", "before"),
    "released": (LEDGER, "Reservation.release", "after"),
    "reply not sent": (TASKS, "FlowerTask.reply", "before"),
    "reply sent": (TASKS, "FlowerTask.reply", "after"),
    "finished": (TASKS, "FlowerTask.finish", "after"),
}

LATER = "later"


def marker_of(folder: Path, point: str) -> Path:
    """The file whose existence keeps an agent alive at a point."""
    return folder / f"died-{point.replace(' ', '-')}"


def die_once(marker: Path) -> None:
    """Kills this process without a word, unless it has died here before."""
    if not marker.exists():
        marker.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)


def wrapped(call: Callable[..., Any], marker: Path, when: str) -> Callable[..., Any]:
    def replacement(*arguments: Any, **keywords: Any) -> Any:
        if when == "before":
            die_once(marker)
        while when == "hold" and keywords["round_number"] == 2 and marker.exists():
            time.sleep(0.05)
        if when == "hang" and not marker.exists():
            marker.write_text("")
            threading.Event().wait()
        result = call(*arguments, **keywords)
        if (when == "after" and result is not None) or call.__name__ in ("reply", "finish"):
            die_once(marker)
        return result

    return replacement


def arm(folder: Path, points: list[str]) -> None:
    """Has the agent die at the first point where it has not died yet, in the order given."""
    for point in points:
        marker = marker_of(folder, point)
        if not marker.exists() or marker.read_text() == LATER:
            module, place, when = POINTS[point]
            owner: Any = importlib.import_module(module)
            outer, _, name = place.rpartition(".")
            owner = getattr(owner, outer) if outer else owner
            setattr(owner, name, wrapped(getattr(owner, name), marker, when))
            return


def main() -> None:
    part, path, *rest = sys.argv[1:]
    if part == "cloister-agent":
        from cloister.deployment.site import agent

        arm(Path(path).parent, rest)
        agent.main(Path(path))
        return
    service = SiteService(read_site(Path(path)))
    child = service.supervisor.children["agent"]
    command = [sys.executable, "-m", "tests.support.dying_agent", "cloister-agent", path, *rest]
    object.__setattr__(child.program, "command", command)
    service.run()


if __name__ == "__main__":
    main()
