"""Lists what Cloister uses of Flower beyond its public modules, in docs/flower.md.

    python tools/flower_names.py            writes the list into the page
    python tools/flower_names.py --check    says what the installed Flower lacks; exit code 1 then

Run the check before a new version of Flower is pinned: each line names what is missing and the
files of ours that use it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "flower.md"
BEGIN, END = "<!-- made by tools/flower_names.py: begin -->\n", "<!-- end -->\n"
# Flower documents these packages, and their names are those of `__all__`.
PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation")
# Attributes with an underscore that a subclass of ours reads or sets, which no import shows.
ATTRIBUTES = {
    ("flwr.superlink.grid.http_grid", "HttpGrid"): (
        "_client",
        "_retry_invoker",
        "_run",
        "_runtime_client",
        "_try_push_messages",
    ),
    ("flwr.supercore.protobuf.client", "ProtobufClient"): ("_unary_unary",),
    ("flwr.server.superlink.linkstate.sql_linkstate", "SqlLinkState"): (
        "_cleanup_expired_task_tokens",
    ),
    ("flwr.supercore.protobuf.translation", "ProtobufTranslationMiddleware"): (
        "_check_request_media_type",
        "_parse_request",
    ),
}


@dataclass(frozen=True)
class Used:
    """A private name of Flower.

    Attributes:
        module: Where it is imported from.
        name: The name.
        files: Files of ours that import it, relative to the project.
        keywords: Keyword arguments with which it is called.
    """

    module: str
    name: str
    files: tuple[str, ...]
    keywords: frozenset[str]


def private_names(root: Path = ROOT) -> list[Used]:
    """Returns every name that the package imports from a module of Flower that is not public."""
    files: dict[tuple[str, str], list[str]] = {}
    keywords: dict[tuple[str, str], set[str]] = {}
    for path in sorted((root / "cloister").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        local = dict(_imports(tree))
        for key in local.values():
            files.setdefault(key, []).append(str(path.relative_to(root)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                key = local.get(node.func.id, ("", ""))
                keywords.setdefault(key, set()).update(k.arg for k in node.keywords if k.arg)
    return [
        Used(module, name, tuple(found), frozenset(keywords.get((module, name), ())))
        for (module, name), found in sorted(files.items())
    ]


def _imports(tree: ast.AST) -> Iterator[tuple[str, tuple[str, str]]]:
    """(local name, (module, name)) of each private import of one file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_private(alias.name):
                    yield alias.asname or alias.name, (alias.name, "")
        elif isinstance(node, ast.ImportFrom) and _is_private(node.module or ""):
            for alias in node.names:
                yield alias.asname or alias.name, (str(node.module), alias.name)


def _is_private(module: str) -> bool:
    return module.split(".")[0] == "flwr" and module not in PUBLIC


def missing(used: Used) -> list[str]:
    """Returns what the installed Flower lacks of a name, with the files of ours that need it."""
    files = ", ".join(used.files)
    try:
        found: Any = importlib.import_module(used.module)
        found = getattr(found, used.name) if used.name else found
    except (ImportError, AttributeError):
        return [f"{used.module}.{used.name} is missing; used by {files}"]
    lacks = [
        f"{used.module}.{used.name} takes no argument {keyword!r}; used by {files}"
        for keyword in sorted(used.keywords - _accepted(found, used.keywords))
    ]
    attributes = ATTRIBUTES.get((used.module, used.name), ())
    source = inspect.getsource(found) if attributes else ""
    return lacks + [
        f"{used.module}.{used.name} has no attribute {name!r}; used by {files}"
        for name in attributes
        if f"self.{name}" not in source and not hasattr(found, name)
    ]


def _accepted(found: Any, asked: frozenset[str]) -> set[str]:
    """Which keyword arguments a callable takes; of a protocol buffer message, its fields."""
    if hasattr(found, "DESCRIPTOR"):
        return set(found.DESCRIPTOR.fields_by_name)
    if not asked:
        return set()
    parameters = inspect.signature(found).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set(asked)
    return {parameter.name for parameter in parameters}


def table(names: list[Used]) -> str:
    """Returns the list as a Markdown table, one row for each module of Flower."""
    modules: dict[str, list[Used]] = {}
    for used in names:
        modules.setdefault(used.module, []).append(used)
    rows = ["| Flower's module | names | used by |", "|---|---|---|"]
    for module, uses in modules.items():
        written = [
            f"`{used.name}`"
            + "".join(f", its `{a}`" for a in ATTRIBUTES.get((module, used.name), ()))
            for used in uses
            if used.name
        ]
        files = sorted({file.removeprefix("cloister/") for used in uses for file in used.files})
        rows.append(f"| `{module}` | {', '.join(written)} | {', '.join(f'`{f}`' for f in files)} |")
    return "\n".join(rows) + "\n"


def page(text: str, names: list[Used]) -> str:
    """Returns the page with the list between its marks made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(names)}{END}{after}"


def main() -> None:
    """Writes the page, or checks the installed Flower."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what Flower lacks")
    names = private_names()
    if not parser.parse_args().check:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), names), encoding="utf-8")
        return
    lacks = [line for used in names for line in missing(used)]
    print("\n".join(lacks) or f"{len(names)} private names of Flower: all there")
    sys.exit(bool(lacks))


if __name__ == "__main__":
    main()
