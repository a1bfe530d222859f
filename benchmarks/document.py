"""Writes a run's figures: as JSON, and as a page with plots."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.machine import machine
from benchmarks.page import page_of
from benchmarks.peers import Peers


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name the two files."""
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--page", type=Path, help="also write a page with plots to this file")


def document(
    before: Mapping[str, object], figures: Sequence[Figure], peers: Peers
) -> dict[str, Any]:
    """What is written.

    Args:
        before: The machine, with its load before the run.
        figures: All figures, the peers' too.
        peers: The sides' times.
    """
    return {
        "machine": dict(before),
        "load_after": machine()["load"],
        "figures": [asdict(figure) for figure in figures],
        "peers": [asdict(side) for side in peers.sides],
        "not_run": dict(peers.not_run),
    }


def write(asked: argparse.Namespace, made: Mapping[str, Any]) -> None:
    """Writes the files that the command line names."""
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    if asked.page is not None:
        asked.page.parent.mkdir(parents=True, exist_ok=True)
        asked.page.write_text(page_of(made), encoding="utf-8")
