"""docs/recipe.md describes every field as the recipe reader checks it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from cloister.fields import field_types
from cloister.recipe.read import KINDS

TOOL = Path(__file__).parents[2] / "tools" / "recipe_reference.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe_reference", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(tool: ModuleType) -> None:
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run make reference"


def test_every_field_of_every_section_is_on_the_page(tool: ModuleType) -> None:
    assert tool.SECTIONS.keys() == KINDS.keys()
    text = tool.page()
    for name, kind in KINDS.items():
        rows = text.split(f"## [{name}]\n")[1].split("\n## ")[0]
        for key in field_types(kind):
            assert f"\n| `{key}` | " in rows, f"{name}.{key}"


def test_every_field_has_a_meaning_and_no_meaning_is_of_a_field_that_is_gone(
    tool: ModuleType,
) -> None:
    for name, kind in KINDS.items():
        said = tool.meanings(kind)
        assert field_types(kind).keys() <= said.keys(), name
        assert said.keys() <= field_types(kind, everywhere=True).keys(), name


def test_bounds_defaults_and_defaults_of_a_task_stand_beside_a_field(tool: ModuleType) -> None:
    text = tool.page()
    assert "| `r` | a whole number from 1 to 1,024 | `4` | Rank of the adapters. |" in text
    assert "`1.0`; `24.0` for token-classification" in text
    assert "| `secure_bits` | 16 or 32 | `32` |" in text
