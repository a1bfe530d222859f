"""What the package is shipped with."""

import subprocess
import tomllib
from pathlib import Path

import pytest

import cloister

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_package_says_to_type_checkers_what_it_says_to_people() -> None:
    """PEP 561: without the file, mypy takes every name of an installed package for Any."""
    assert "Typing :: Typed" in SETTINGS["project"]["classifiers"]
    assert SETTINGS["tool"]["mypy"]["strict"] is True
    assert (Path(cloister.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize(
    "name", ["py.typed", "__init__.py", "dashboard/templates", "dashboard/assets", "cli/main.py"]
)
def test_a_file_of_the_package_is_in_the_wheel(name: str) -> None:
    """Hatchling ships whatever lies in `packages` and neither it nor Git is told to leave out."""
    build = SETTINGS["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"] == {"packages": ["cloister"]}
    assert set(build) == {"targets"}
    assert (ROOT / "cloister" / name).exists()
    if (ROOT / ".git").exists():
        ignored = subprocess.run(
            ["git", "check-ignore", "--no-index", "--quiet", f"cloister/{name}"],
            cwd=ROOT,
            check=False,
        )
        assert ignored.returncode == 1
