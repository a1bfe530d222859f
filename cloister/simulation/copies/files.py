"""The files of a run that are copied to a URL, and those that stay on the machine that runs it.

Only what `COPIED` names leaves the machine. What a run writes besides is in `STAYS`, with the
reason. A test fails if a run writes a file that neither names. Ledgers are copied without the bytes
of their releases (`ledger.entries_copy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from cloister.errors import BadFileError
from cloister.names import is_name

# Patterns of paths in the run's folder; a `*` stands for any text within one name.
COPIED = (
    "recipe.toml",
    "proof.json",
    "metrics.jsonl",
    "evaluations.jsonl",
    "untrained.json",
    "result.json",
    "metrics.png",
    "classes.png",
    "adapter/*",
    "checkpoint/*",
    "start/*",
    "certificates/*.json",
    "certificates/bundle.zip",
    "ledgers/*.ledger",
    "ledgers/*.ledger.head",
)
STAYS = {
    "ledgers/*.key": "a site's signing key, or the key by which it groups its units",
    "ledgers/*.held-out": "which records of a site are held out",
    "ledgers/*.lock": "locks processes of this machine",
    "ledgers/*-journal": "an unfinished transaction of this machine",
    "ledgers/*.personal/*": "a part of the adapter, and an optimizer's memory, that no site sends",
    "personal/*/*": "adapters of single sites, with the part that no site sends",
    "twin/*": "trained without privacy; its scores are in result.json",
    "twin/*/*": "the same",
    "twin/*/*/*": "the same",
    "data/*": "records",
    "tensorboard/*": "file names with the machine's name; its figures are in metrics.jsonl",
    "trackers.json": "addresses of trackers",
    ".begun": "says that this machine made the folder",
    ".url.json": "says to which URL this folder is copied",
}
# The ending of a ledger's path.
LEDGER = ".ledger"


def is_copied(path: str) -> bool:
    """Returns whether a file of a run is copied to its URL.

    Args:
        path: Its path in the run's folder, with `/` between names.
    """
    return (
        all(is_name(name) for name in path.split("/"))
        and any(_fits(path, pattern) for pattern in COPIED)
        and not stays(path)
    )


def stays(path: str) -> bool:
    """Returns whether a file is known to stay on the machine that runs the study."""
    return any(_fits(path, pattern) for pattern in STAYS)


def copied_files(folder: Path) -> Iterator[str]:
    """Yields the paths of a run's files that are copied, as they are in it now, in their order.

    Raises:
        BadFileError: One of them is a link, or no file: what it shows may be of another folder.
        OSError: A folder cannot be read.
    """
    parts = sorted({pattern.partition("/")[0] for pattern in COPIED if "/" in pattern})
    folders = [folder, *(folder / part for part in parts)]
    for place in folders:
        if place.is_symlink():
            raise BadFileError(f"{place}: is a link, which is not copied; put the folder there")
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            name = path.relative_to(folder).as_posix()
            if not is_copied(name):
                continue
            if path.is_symlink() or not path.is_file():
                raise BadFileError(f"{path}: is no file, so it is not copied; put a file there")
            yield name


def _fits(path: str, pattern: str) -> bool:
    names, wanted = path.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(map(fnmatchcase, names, wanted))
