"""Writes the reference pages from the code: docs/api.md and docs/commands.md.

    python tools/reference.py            writes them
    python tools/reference.py --check    exit code 1 where one is not current

The first has every public name of `cloister` with its docstring, the second every command with its
arguments and options, as `--help` has them.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import cloister
from cloister.cli.main import command_line

DOCS = Path(__file__).resolve().parents[1] / "docs"
MADE = "<!-- made by tools/reference.py; not to be edited -->\n"
# The help's last paragraph: a command, over several lines if it is long.
_EXAMPLE = re.compile(r"Example: (.+(?:\n.+)*)")
# Sections of a Google-style docstring whose entries are `name: text`.
LISTED = ("Args", "Attributes", "Raises")
# How a signature is printed: what to write in place of what. Addresses differ from run to run, and
# quotes around annotations from one version of Python to another.
PRINTED = (
    (re.compile(r"<[^<>]* at 0x[0-9a-f]+>|<factory>"), "…"),
    (re.compile(r"<(\w+\.\w+): [^<>]+>"), r"\1"),
    (re.compile(r"(: |-> )'([^']*)'"), r"\1\2"),
)
LONGEST_SIGNATURE = 80


def api_page() -> str:
    """Returns the page of the public names."""
    parts = [MADE, "# Public names\n", "`import cloister as cl`; how they go together: [Python]"]
    parts[-1] += "(python.md).\n"
    for name in cloister.__all__:
        if not name.startswith("_"):
            parts += _entry(f"cl.{name}", getattr(cloister, name), "##")
    return "\n".join(parts)


def _entry(name: str, thing: Any, level: str) -> Iterator[str]:
    yield f"{level} {name}\n"
    signature = _signature(thing)
    if signature:
        yield f"```python\n{name}{signature}\n```\n"
    yield markdown(inspect.getdoc(thing) or "")
    if inspect.isclass(thing):
        for own, member in vars(thing).items():
            if own.startswith("_") or not inspect.getdoc(member):
                continue
            if isinstance(member, property | classmethod | staticmethod) or callable(member):
                plain = getattr(member, "__func__", member)
                yield from _entry(f"{name.removeprefix('cl.')}.{own}", plain, "###")


def _signature(thing: Any) -> str:
    """How it is called; empty for what is not: properties, protocols, values."""
    if isinstance(thing, property) or getattr(thing, "_is_protocol", False) or not callable(thing):
        return ""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    named = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    text = _printed(str(signature.replace(parameters=named)))
    if len(text) <= LONGEST_SIGNATURE:
        return text
    lines = [f"    {_printed(str(parameter))}," for parameter in named]
    keywords = [n for n, p in enumerate(named) if p.kind is p.KEYWORD_ONLY]
    if keywords:
        lines.insert(keywords[0], "    *,")
    returned = text.rpartition(") -> ")[2] if ") -> " in text else ""
    return "(\n" + "\n".join(lines) + "\n)" + (f" -> {returned}" if returned else "")


def _printed(text: str) -> str:
    for found, instead in PRINTED:
        text = found.sub(instead, text)
    return text


def markdown(docstring: str) -> str:
    """Returns a Google-style docstring as Markdown: lists for sections, fences for examples."""
    out: list[str] = []
    section = ""
    for block in re.split(r"\n{2,}", docstring.strip()):
        lines = block.split("\n")
        head = re.fullmatch(r"(\w+):", lines[0])
        if head and len(lines) > 1 and lines[1].startswith("    "):
            section, lines = head[1], [line[4:] for line in lines[1:]]
            out.append(f"**{section}**\n")
            out.append(_listed(lines) if section in LISTED else " ".join(map(str.strip, lines)))
        elif lines[0].startswith((">>>", "    ")):
            out.append("```python\n" + "\n".join(lines) + "\n```")
        else:
            out.append(block)
        out.append("")
    return "\n".join(out)


def _listed(lines: list[str]) -> str:
    items: list[str] = []
    for line in lines:
        entry = re.match(r"(\*{0,2}\w+): (.*)", line)
        if entry:
            items.append(f"- `{entry[1]}`: {entry[2]}")
        elif items:
            items[-1] += f" {line.strip()}"
    return "\n".join(items)


def commands_page() -> str:
    """Returns the page of the commands."""
    parts = [MADE, "# Commands\n", "Every command, as `--help` has it.\n"]
    group = command_line()
    parts += _command("cloister", group, 1)
    return "\n".join(parts)


def _command(name: str, command: Any, level: int) -> Iterator[str]:
    if level > 1:
        yield f"{'#' * level} {name}\n"
    yield _EXAMPLE.sub(_one_line, inspect.cleandoc(command.help or "")) + "\n"
    rows = [row for parameter in command.params if (row := _parameter(parameter))]
    if rows:
        yield "\n".join(["| argument or option | what it is |", "|---|---|", *rows]) + "\n"
    for child, below in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {child}", below, level + 1)


def _one_line(example: re.Match[str]) -> str:
    """Returns an example as code on one line, however many lines the help has for it."""
    return f"Example: `{' '.join(example[1].split())}`"


def _parameter(parameter: click.Parameter) -> str:
    if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
        return ""
    options = [*parameter.opts, *parameter.secondary_opts]
    is_option = any(option.startswith("-") for option in options)
    shown = ", ".join(options) if is_option else parameter.metavar or str(parameter.name).upper()
    if is_option and not getattr(parameter, "is_flag", False):
        choices = getattr(parameter.type, "choices", None)
        values = "|".join(str(getattr(c, "value", c)) for c in choices) if choices else ""
        shown += f" {values or parameter.metavar or parameter.type.name.upper()}"
    text = (getattr(parameter, "help", None) or "").replace("|", "\\|").replace("\n", " ")
    return f"| `{shown.replace('|', chr(92) + '|')}` | {text} |"


PAGES: dict[str, Callable[[], str]] = {"api.md": api_page, "commands.md": commands_page}


def main() -> None:
    """Writes the pages, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say which are not current")
    check = parser.parse_args().check
    stale = [name for name, make in PAGES.items() if not is_current(name, make())]
    if check:
        print("\n".join(f"docs/{name} is not current" for name in stale) or "current")
        sys.exit(bool(stale))
    for name in stale:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")


def is_current(name: str, text: str) -> bool:
    """Whether a page says what the code says."""
    path = DOCS / name
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    main()
