"""The public names of `cloister` are the documented list, and are loaded lazily."""

import ast
import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cloister

ROOT = Path(__file__).parents[2]
SOURCE = ast.parse(Path(cloister.__file__).read_text(encoding="utf-8"))


def test_dir_is_the_documented_list() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    table = page.split("## Public names")[1].split("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.M)
    assert dir(cloister) == sorted(documented) == sorted(cloister.__all__)


def test_every_public_name_is_there_and_unknown_ones_are_not() -> None:
    for name in cloister.__all__:
        assert getattr(cloister, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Stduy'"):
        cloister.Stduy  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_each_name_where_it_is_imported_from() -> None:
    (typed,) = (
        node for node in SOURCE.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )
    stated = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert stated == cloister._PLACES
    assert sorted([*stated, "__version__"]) == sorted(cloister.__all__)


def test_import_loads_no_other_module_of_the_package_and_looks_at_no_argument() -> None:
    program = "import cloister, sys; print(*[m for m in sys.modules if m.startswith('cloister')])"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["cloister"]


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (ROOT / "cloister" / "api").glob("[a-z]*.py"))
)
def test_examples_in_the_docstrings_run_as_written(name: str) -> None:
    failed, _ = doctest.testmod(import_module(f"cloister.api.{name}"))
    assert failed == 0


def test_the_public_names_that_compute_have_examples() -> None:
    for name in ("Study", "epsilon", "partition", "simulate"):
        assert ">>> import cloister as cl" in getattr(cloister, name).__doc__, name
