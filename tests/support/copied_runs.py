"""Run folders without training, and a file system of fsspec that fails when it is told to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec

from cloister.ledger.ledger import Ledger
from cloister.recipe import parse_recipe
from cloister.registry.store import RemoteStore
from cloister.server.run_directory import RunDirectory
from cloister.simulation.copies.place import RunPlace
from cloister.simulation.copies.remote import RunUrl
from cloister.simulation.copies.writing import RunCopy
from tests.support.ledgers import new_ledger, run_round

SITES = ("east", "west")
RECIPE = parse_recipe("", ["study.name=copied"])
# What changes something at a URL.
CHANGES = frozenset({"put_file", "pipe_file", "rm_file", "makedirs"})


def url_of(folder: Path) -> str:
    """A URL in memory that no other test uses."""
    return f"memory://{folder.name}/clinics/run"


def at_url(url: str) -> dict[str, bytes]:
    """Every file at a URL in memory, by its path there."""
    files, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(root + "/"): files.cat_file(path) for path in files.find(root)}


def begin_sites(run: RunDirectory) -> None:
    """Begins ledgers, with what else stands in a run's folder before its first round."""
    (run.path / "ledgers").mkdir()
    for site in SITES:
        new_ledger(run.ledger(site))
    (run.path / "proof.json").write_text("[]")


def close_round(run: RunDirectory, number: int) -> None:
    """Writes what a closed round writes: charges, a checkpoint in place of the former, a line."""
    for site in SITES:
        run_round(Ledger(run.ledger(site)), number)
    folder = run.path / "checkpoint"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("round-*"):
        old.unlink()
    (folder / f"round-{number:04d}.adapter").write_bytes(b"adapter %d" % number)
    (folder / "latest.json").write_text(json.dumps({"round": number}))
    run.append_metrics({"round": number})


def finish(run: RunDirectory) -> None:
    """Writes what a finished study writes."""
    run.adapter.mkdir()
    (run.adapter / "cloister.json").write_text("{}")
    run.result_file.write_text("{}")


class FailingFiles:
    """A file system whose changes fail from a given one on, as those of a process that is killed.

    Attributes:
        before: Is called before each change, with its number and its path.
        changes: The changes so far, each as method and path.
    """

    def __init__(self, files: Any, before: Callable[[int, str], None]) -> None:
        self.files, self.before = files, before
        self.changes: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.files, name)
        if name not in CHANGES:
            return found

        def change(*arguments: Any, **named: Any) -> Any:
            at = str(arguments[1] if name == "put_file" else arguments[0])
            self.before(len(self.changes), at)
            self.changes.append((name, at))
            return found(*arguments, **named)

        return change


def failing(copy: RunCopy, before: Callable[[int, str], None]) -> FailingFiles:
    """Puts a failing file system under a copy."""
    files = FailingFiles(copy.url.files, before)
    copy.url = RunUrl(copy.url.shown, RemoteStore(files, copy.url.store.root), copy.url.given)
    return files


def copied(folder: Path, url: str | None = None) -> tuple[RunDirectory, RunCopy]:
    """A new run with one closed round, which was copied to its URL."""
    run, copy = RunPlace.of(url or url_of(folder), folder / "work").create(RECIPE)
    begin_sites(run)
    close_round(run, 1)
    copy.after_round(1)
    return run, copy
