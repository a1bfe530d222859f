"""Marks of run folders: one that is copied to a URL, and a copy that was fetched from there.

A study is continued in the folder in which it ran, and nowhere else. A copy of its ledgers may lack
charges that were made since, so a study that went on with it would state too small an ε.
"""

from __future__ import annotations

from pathlib import Path

from cloister.errors import RefusedError

# In the folder that is copied: the URL and the folder's random number.
URL_MARK = ".url.json"
# In a copy: where it comes from.
COPY = "copy.json"


def is_copy(folder: Path) -> bool:
    """Returns whether a run's folder is a copy that was fetched from a URL."""
    mark = folder / COPY
    return mark.exists() or mark.is_symlink()


def refuse_copy(folder: Path) -> None:
    """Refuses to train or charge in a copy, or to begin with its ledgers.

    Raises:
        RefusedError: The folder is a copy.
    """
    if is_copy(folder):
        raise RefusedError(
            f"{folder}: a copy that was fetched from a URL ({COPY}), for reading only: its ledgers "
            "may lack later charges, and a study that continued with them would state too small an "
            "ε. Continue in the folder where the study ran (cloister simulate --resume --out URL, "
            "on that machine), or begin a new run"
        )
