"""Compares tables in the documentation with the results of tests."""

import os
from collections.abc import Mapping
from pathlib import Path

AUDIT = Path(__file__).parents[2] / "docs" / "audit.md"


def hold(marker: str, head: str, rows: Mapping[str, str]) -> None:
    """Fails where a page's table is not these rows; with WRITE_DOCS set, writes them instead."""
    page = AUDIT.read_text(encoding="utf-8")
    start, end = f"<!-- {marker} -->\n", f"<!-- end {marker} -->"
    before, rest = page.split(start)
    listed, after = rest.split(end)
    table = f"{head}\n|---|---|\n" + "".join(f"| {k} | {v} |\n" for k, v in rows.items())
    if os.environ.get("WRITE_DOCS"):
        AUDIT.write_text(before + start + table + end + after, encoding="utf-8")
    else:
        assert listed == table, f"docs/audit.md: WRITE_DOCS=1 writes this table:\n{table}"
