"""A site's service whose agent kills itself, or hangs, once at each of some named points.

python -m tests.support.dying_agent service SITE.TOML POINT…
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloister.client import round as site_round
from cloister.client.site_file import read_site
from cloister.deployment.flower.tasks import Executor, FlowerTask
from cloister.deployment.site import agent
from cloister.deployment.site.service import SiteService
from cloister.ledger.ledger import Ledger, Reservation

# What an agent does in a round, in order; it dies right before or after, or does nothing more.
POINTS: dict[str, tuple[type | Any, str, str]] = {
    "claimed": (Executor, "claim", "after"),
    "message taken": (FlowerTask, "message", "after"),
    "charged": (Ledger, "reserve", "after"),
    "training": (site_round, "local_update", "before"),
    "hung": (site_round, "local_update", "hang"),
    "trained": (Reservation, "release", "before"),
    "released": (Reservation, "release", "after"),
    "reply not sent": (FlowerTask, "reply", "before"),
    "reply sent": (FlowerTask, "reply", "after"),
    "finished": (FlowerTask, "finish", "after"),
}


def die_once(marker: Path) -> None:
    """Kills this process without a word, unless it has died here before."""
    if not marker.exists():
        marker.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)


def wrapped(call: Callable[..., Any], marker: Path, when: str) -> Callable[..., Any]:
    def replacement(*arguments: Any, **keywords: Any) -> Any:
        if when == "before":
            die_once(marker)
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
        marker = folder / f"died-{point.replace(' ', '-')}"
        if not marker.exists():
            owner, name, when = POINTS[point]
            setattr(owner, name, wrapped(getattr(owner, name), marker, when))
            return


def main() -> None:
    part, path, *rest = sys.argv[1:]
    if part == "agent":
        arm(Path(path).parent, rest)
        agent.main(Path(path))
        return
    service = SiteService(read_site(Path(path)))
    child = service.supervisor.children["agent"]
    command = [sys.executable, "-m", "tests.support.dying_agent", "agent", path, *rest]
    object.__setattr__(child.program, "command", command)
    service.run()


if __name__ == "__main__":
    main()
