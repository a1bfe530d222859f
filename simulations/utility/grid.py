"""The tables of docs/utility-tables.md: heads on frozen bases for every data set, at equal ε.

    python simulations/utility/grid.py --data DATA --cache CACHE
    python simulations/utility/grid.py --data DATA --cache CACHE --set banking77 --base MiniLM
    python simulations/utility/grid.py --table

The first runs what grid.jsonl does not have yet, so a run that was interrupted goes on. Each row of
the file is one training. Settings are chosen on a validation split: all are run at one seed, and
the best quarter at three. The one with the highest mean is trained again on all training records,
and scored on the test set. `--table` prints the tables of the rows that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from grid_rows import ROWS, TEXT_ROWS, epsilons, runs_on
from grid_store import Row, Store
from grid_table import tables
from methods import Method, Task
from search import search
from sets import BASES, PAIRS, SAMPLED, SETS, pair, split

RESULTS = Path(__file__).parent / "grid.jsonl"
# Opens a data set to choose settings on (`validation`) or to report (`test`).
Opener = Callable[[str], Task]


def main(words: Sequence[str] | None = None) -> None:
    """Runs what is missing, or prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, help="folder for the bases' vectors")
    parser.add_argument("--set", nargs="*", default=list(SETS), choices=list(SETS), dest="sets")
    parser.add_argument("--base", nargs="*", default=list(BASES), choices=list(BASES), dest="bases")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument(
        "--folder",
        action="append",
        default=[],
        metavar="BASE=FOLDER",
        help="where a base is, if its hub id cannot be found here",
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(words)
    store = Store(given.results)
    if given.table:
        print(tables(store.rows))
        return
    if given.data is None or given.cache is None:
        parser.error("--data and --cache are needed to run; --table prints what was run")
    folders = dict(text.split("=", 1) for text in given.folder)
    text_rows = [row for row in given.rows if row in TEXT_ROWS]
    for name in given.sets:
        run_rows(store, {"data": name, "base": None}, _texts(given.data, name, None), text_rows)
    for name, base in PAIRS:
        if name in given.sets and base in given.bases:
            rows = [row for row in given.rows if row not in TEXT_ROWS and runs_on(row, base)]
            opened = _vectors(given.data, name, base, folders.get(base), given.cache)
            run_rows(store, {"data": name, "base": base}, opened, rows)


def run_rows(store: Store, case: dict[str, Any], opened: Opener, rows: list[str]) -> None:
    """Runs every row of a data set and base, at each ε."""

    def run(about: Row, method: Method, part: str, seed: int) -> None:
        task = opened(part)
        found = method.classes(task, seed)
        store.add(about, found, task.test.labels, whole=part == "test")

    for name in rows:
        search(store, {**case, "row": name}, ROWS[name], epsilons(name), run)


def _texts(data: Path, name: str, records: int | None) -> Opener:
    @cache
    def opened(part: str) -> Task:
        found = split(data, name, records)
        train, test = (
            (found.fit, found.valid) if part == "validation" else (found.train, found.test)
        )
        return Task(train, test, SETS[name].sites)

    return opened


def _vectors(data: Path, name: str, base: str, folder: str | None, kept: Path) -> Opener:
    texts = _texts(data, name, SAMPLED.get((name, base)))

    @cache
    def both() -> Any:
        return pair(data, name, base, folder, kept)

    @cache
    def opened(part: str) -> Task:
        found = both()
        vectors = found.search if part == "validation" else found.final
        return texts(part)._replace(found=vectors, center=found.center, names=found.names)

    return opened


if __name__ == "__main__":
    main()
