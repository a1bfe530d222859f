"""`cloister compare`: several runs in one table and one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from cloister.simulation.compare import Comparison, Group

# Bytes of a megabyte, in decimal units.
MEGABYTE = 1e6
# With at least this many swept fields a setting is wrapped: two take about 40 of 80 columns.
MOST_WHOLE = 3


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs' folders, or folders of runs as simulate --sweep makes them."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File for a figure (PNG). Absent: no figure.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare runs: score, ε, bytes and seconds; mean ± s.d. over seeds.

    Runs that differ only in their seed form one row. ε is the largest promise to a site, from the
    checked ledgers. Runs that differ in more than the swept fields are named.

    Example: cloister compare runs/sweep --out compare.png
    """
    from cloister.simulation.compare import compare as compared

    found = compared(runs)
    if out is not None:
        draw(found, out)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    show(found, out)


def draw(found: Comparison, out: Path) -> None:
    """Writes the figure of a comparison as a PNG file."""
    from cloister.simulation.compare_plot import plot_comparison

    plot_comparison(found, out)


def show(found: Comparison, picture: Path | None) -> None:
    """Prints the table, and warnings about differences that make runs hard to compare."""
    from rich.markup import escape
    from rich.table import Table

    from cloister.cli.terminal import Terminal
    from cloister.simulation.measured import promise_lines

    console = Terminal()
    table = Table(box=None, header_style="bold")
    has_old = any(group.old_test is not None for group in found.groups)
    columns = (
        "setting",
        "seeds",
        f"test {found.metric}",
        "untrained",
        "ε",
        "MB sent",
        "seconds",
        *(["old test, before → after"] if has_old else []),
    )
    for name in columns:
        # A setting such as `privacy.epsilon 3` is not wrapped; other columns are.
        is_whole = name == columns[0] and len(found.fields) < MOST_WHOLE
        justify: Literal["left", "right"] = "left" if name in (columns[0], columns[4]) else "right"
        table.add_column(name, justify=justify, no_wrap=is_whole, overflow="fold")
    for group in found.groups:
        old = [_old_cell(group)] if has_old else []
        table.add_row(*_cells(group), *old)
    console.print(table)
    for line in promise_lines([group.promise for group in found.groups]):
        console.print(line, soft_wrap=True)
    for note in found.notes:
        console.print(f"[yellow]warning:[/] {escape(note)}", markup=True, soft_wrap=True)
    if picture is not None:
        console.print(f"picture: {picture}", soft_wrap=True)


def _old_cell(group: Group) -> str:
    """Returns what a study that began with a finished run kept of the older test set."""
    if group.old_test is None:
        return "–"
    before, after = group.old_test
    return f"{before:.4f} → {after:.4f}"


def _cells(group: Group) -> tuple[str, ...]:
    from cloister.simulation.measured import epsilon_text

    spread = "" if group.deviation is None else f" ± {group.deviation:.4f}"
    return (
        group.label,
        str(len(group.runs)),
        f"{group.mean:.4f}{spread}",
        "–" if group.untrained is None else f"{group.untrained:.4f}",
        epsilon_text(group.promise),
        f"{group.bytes / MEGABYTE:.2f}",
        f"{group.seconds:.0f}",
    )
