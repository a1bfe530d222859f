"""Writes docs/recipe.md: every field of a recipe, from the dataclasses that read it.

    python tools/recipe_reference.py            (make reference)

A field's meaning is its line under "Attributes:" in the docstring of its section; its type, bounds
and default are those that the reader holds a file to. So the page cannot say anything else.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from cloister.fields import as_table, field_types, takes_none, type_words
from cloister.recipe import Recipe
from cloister.recipe.defaults import TASK_DEFAULTS
from cloister.recipe.read import KINDS

PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"

HEAD = """\
# Recipe reference

<!-- Made by `make reference` from the dataclasses of the sections; a test holds it to them. -->

This page lists every field of a recipe, for those who write one. A recipe is a TOML file that
describes a study. Every field has a default, so a recipe states only what differs from the
defaults; `--set section.key=value` changes a field on the command line. `cloister new` writes a
recipe to begin with; `cloister plan` shows what a recipe promises. A run keeps a `recipe.toml` of
its own: it states the value of every field, and lists fields without a value in `absent`. All
sections except `[machine]` and `[tracking]` are sent to the sites and covered by the study's
digest.
"""

# The first line of each section on the page, in the order in which one plans a study.
SECTIONS = {
    "study": "The study's name, and the seed.",
    "model": "The frozen base model, and how its vectors are read.",
    "lora": "The adapter and the head that are trained on the base.",
    "task": "The task that the adapter learns.",
    "data": "Records, their columns, and how a simulation distributes them to sites.",
    "training": "A site's training in a round.",
    "privacy": "The privacy guarantee for every site.",
    "federation": "Number of rounds, least number of sites, time limits, early stopping.",
    "strategy": "How the coordinator aggregates updates ([the strategies](strategies.md)).",
    "machine": "Settings of the machine that runs, such as memory; not part of the study.",
    "tracking": "Settings of the coordinator; not part of the study.",
}


def page() -> str:
    """The page's text."""
    return "\n".join([HEAD, *(_section(name) for name in SECTIONS)])


def meanings(kind: type) -> dict[str, str]:
    """What each field of a section means, from its docstring.

    Args:
        kind: The section's dataclass.

    Returns:
        One line of text by field.
    """
    text = inspect.getdoc(kind) or ""
    _, _, listed = text.partition("Attributes:\n")
    found: dict[str, list[str]] = {}
    for line in listed.splitlines():
        begins = re.fullmatch(r"    (\w+): (.+)", line)
        if begins:
            name = begins[1]
            found[name] = [begins[2]]
        elif line.startswith("        ") and found:
            found[name].append(line.strip())
        elif line.strip():
            break
    return {name: " ".join(lines) for name, lines in found.items()}


def _section(name: str) -> str:
    kind, defaults = KINDS[name], as_table(getattr(Recipe(), name))
    said = meanings(kind)
    rows = [
        f"| `{key}` | {_type(hint)} | {_default(name, key, defaults)} | {_cell(said[key])} |"
        for key, hint in field_types(kind).items()
    ]
    return "\n".join(
        [
            f"## [{name}]",
            "",
            SECTIONS[name],
            "",
            "| key | type and bounds | default | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _type(hint: Any) -> str:
    return _cell(type_words(hint)) + (", or absent" if takes_none(hint) else "")


def _default(section: str, key: str, defaults: dict[str, object]) -> str:
    """A default as TOML has it, with those of single tasks."""
    value = defaults.get(key)
    shown = "absent" if value is None else f"`{_toml(value)}`"
    special = [
        f"`{_toml(fields[section][key])}` for {task}"
        for task, fields in TASK_DEFAULTS.items()
        if key in fields.get(section, {})
    ]
    return _cell("; ".join([shown, *special]))


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(value)


def _cell(text: str) -> str:
    """Text for a table's cell, where a bar would end it."""
    return text.replace("|", "\\|")


def main() -> int:
    """Writes the page; says whether it was another."""
    text = page()
    is_current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {'as it was' if is_current else 'written'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
