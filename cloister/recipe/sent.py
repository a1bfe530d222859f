"""Writes and reads the document of a study that a coordinator sends to its sites.

A document from another party is bounded before it is parsed, and every field must be in it: the
reading version fills in none and skips none.
"""

from __future__ import annotations

import json
import re
from typing import Any

from cloister.bounds import shortened
from cloister.canonical import canonical
from cloister.errors import RecipeError
from cloister.fields import read_section
from cloister.recipe.document import FORMAT, KEPT, LAST_FORMAT, OLD_FORMAT, as_begun
from cloister.recipe.read import KINDS
from cloister.recipe.rules import study_problems
from cloister.recipe.schema import Recipe
from cloister.recipe.votes_config import VotesConfig
from cloister.strategies.config import CarriedStrategy
from cloister.tasks.plugins import read_task
from cloister.toml_text import MOST_BYTES, MOST_COMMAS
from cloister.training.machine import MachineConfig

# Deepest value: a list in a section has depth 2; a strategy of another version may be deeper.
MOST_DEPTH = 8
# Most lists and tables: thirteen sections and 20 lists, and more in another version's strategy.
MOST_BRACKETS = 1000

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)


def sent_document(recipe: Recipe) -> str:
    """Returns the whole resolved study as it is sent to sites; its SHA-256 is the study's digest.

    Raises:
        RecipeError: It is longer than sites accept.
    """
    text = recipe.document()
    size = len(text.encode())
    if size > MOST_BYTES:
        raise RecipeError([f"the study's document has {size} bytes; at most {MOST_BYTES} are read"])
    return text


def parse_document(text: str) -> Recipe:
    """Parses the document of a study that a coordinator sent to a site.

    The sections `machine` and `tracking` get this version's defaults, because the site has its own.
    The strategy is kept without being parsed.

    Raises:
        RecipeError: It is too large or too deep, not in canonical form, of another format, lacks
            a field, has an unknown one or one out of its bounds, or contradicts itself.

    Guarantees:
        Time and memory are bounded for any text. `parse_document(text).digest()` is the SHA-256 of
        `text` (in format 1, as that format had it; in format 2 what `auto` then meant is stated as
        `trained`), and no default of this version is in the result.
    """
    fields = _load(text)
    version = fields.pop("format", None)
    if version not in (FORMAT, LAST_FORMAT, OLD_FORMAT) or isinstance(version, bool):
        raise RecipeError(
            [
                f"format: {shortened(version)} given, but this version reads {FORMAT}: install the "
                "same version at the site and its coordinator"
            ]
        )
    problems: list[str] = []
    begun = _begun(fields.pop("begun", None), problems) if version == OLD_FORMAT else None
    model = fields.get("model")
    if version != FORMAT and isinstance(model, dict):
        fields["model"] = as_begun(model)
    sections = _sections(fields, problems, is_old=version == OLD_FORMAT)
    if problems:
        raise RecipeError(problems)
    written = LAST_FORMAT if version == LAST_FORMAT else FORMAT
    recipe = Recipe(**sections, begun=begun, format=written)
    problems = study_problems(recipe)
    if problems:
        raise RecipeError(problems)
    if recipe.document() != text:
        raise RecipeError(["the study's document is not in canonical form: it was changed"])
    return recipe


def _load(text: str) -> dict[str, Any]:
    """Parses a study's text after checking its length, depth and size."""
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise RecipeError([f"the study's document has over {MOST_BYTES} bytes, which is too long"])
    _look_over(text)
    try:
        fields = json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
        sound = isinstance(fields, dict) and canonical(fields).decode() == text
    except (ValueError, RecursionError) as error:
        raise RecipeError([f"the study's document is not valid JSON: {error}"]) from error
    if not sound:
        raise RecipeError(["the study's document is not in canonical form: it was changed"])
    return fields  # type: ignore[no-any-return]


def _look_over(text: str) -> None:
    """Refuses a text with too much structure for a document, in one pass."""
    depth = brackets = commas = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        opens = token in ("[", "{")
        brackets += opens
        commas += token == ","
        depth += opens - (token in ("]", "}"))
        if depth > MOST_DEPTH or brackets > MOST_BRACKETS or commas > MOST_COMMAS:
            raise RecipeError(
                [
                    f"the study's document is deeper than {MOST_DEPTH}, or has over "
                    f"{MOST_BRACKETS} lists and tables or {MOST_COMMAS} values, which is too much"
                ]
            )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key in a table")
    return found


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def _begun(table: object, problems: list[str]) -> MachineConfig | None:
    if not isinstance(table, dict):
        problems.append("begun: missing")
        return None
    return read_section(MachineConfig, table, "begun", problems, is_whole=True)


def _sections(fields: dict[str, Any], problems: list[str], *, is_old: bool) -> dict[str, Any]:
    kinds = {n: k for n, k in KINDS.items() if n not in KEPT or (is_old and n == "tracking")}
    problems += [f"{name}: missing" for name in kinds if name not in fields]
    if "votes" in fields and not is_old:  # of a study of votes only
        kinds["votes"] = VotesConfig
    problems += [
        f"{shortened(name)[1:-1]}: unknown section; known: {', '.join(kinds)}"
        for name in fields
        if name not in kinds
    ]
    sections: dict[str, Any] = {}
    for name in (name for name in kinds if name in fields):
        table = fields[name]
        if not isinstance(table, dict):
            problems.append(f"{name}: {shortened(table)} given; a table is needed")
        elif name == "strategy":
            sections[name] = _carried(table, problems)
        elif name == "task":
            sections[name] = read_task(table, problems, is_whole=True)
        else:
            sections[name] = read_section(kinds[name], table, name, problems, is_whole=True)
    return sections


def _carried(table: dict[str, Any], problems: list[str]) -> CarriedStrategy | None:
    """Keeps a strategy without parsing it: its name, and the other fields as they were sent."""
    options = canonical({k: v for k, v in table.items() if k != "name"}).decode()
    named = {key: value for key, value in table.items() if key == "name"}
    return read_section(
        CarriedStrategy, {"options": options, **named}, "strategy", problems, is_whole=True
    )
