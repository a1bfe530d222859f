"""Everything of docs/utility-tables.md: heads on frozen bases, entities, and simulated LoRA.

    python simulations/utility/all_tables.py --data DATA --cache CACHE
    python simulations/utility/all_tables.py --table

The first runs what the files of raw rows do not have yet, the second prints every table of them.
`grid.py`, `entities.py` and `lora.py` run and print a part each, and have options for parts of it.
"""

from __future__ import annotations

import argparse

import entities
import grid
import lora


def main() -> None:
    """Runs what is missing everywhere, or prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with a folder of each data set")
    parser.add_argument("--cache", help="folder for what the bases computed")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table and (given.data is None or given.cache is None):
        parser.error("--data and --cache are needed to run; --table prints what was run")
    words = ["--table"] if given.table else ["--data", given.data, "--cache", given.cache]
    for part in (grid, entities, lora):
        part.main(words)
        if given.table:
            print()


if __name__ == "__main__":
    main()
