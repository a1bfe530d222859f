"""The documentation names what is there, and its commands can be meant."""

import re
import shlex
from pathlib import Path

import pytest

from cloister.cli.main import app, run
from cloister.recipe import read_recipe

ROOT = Path(__file__).parents[1]
GROUPS = {group.name for group in app.registered_groups}
TESTS = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_map_lists_every_file_of_the_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(cloister/[\w/]+\.py)`", text))
    present = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cloister").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert listed == present


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_tests_named_in_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in TESTS, name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_shown_have_options_that_exist(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in re.findall(r"^\$ cloister (.+)$", page.read_text(encoding="utf-8"), re.M):
        words = shlex.split(line)
        verbs = words[: 2 if words[0] in GROUPS else 1]
        assert run([*verbs, "--help"]) == 0
        shown = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option in shown, line


def test_the_readme_s_recipe_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    recipe = tmp_path / "study.toml"
    recipe.write_text(re.findall(r"```toml\n(.*?)```", text, re.S)[0], encoding="utf-8")
    files = ["data.train='train.jsonl'", "data.test='test.jsonl'"]
    assert read_recipe(recipe, files).data.sites == 5


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "simulations").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_recipe_in_simulations_is_valid(recipe: Path) -> None:
    assert read_recipe(recipe).privacy.target_epsilon == 8.0
