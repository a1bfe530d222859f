"""The documentation names existing things, and its commands are valid."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cloister.cli.main import command_line, run
from cloister.recipe import Recipe, parse_recipe, read_recipe
from cloister.tasks.registry import BUILT_IN
from tests.test_import_order import ROOMS

ROOT = Path(__file__).parents[1]
TESTS = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# More than this is a listing, not a reading order.
LONGEST_READING_ORDER = 60


def test_every_file_that_the_map_names_exists() -> None:
    named = re.findall(r"`((?:cloister|deployment|privacy|client)/[\w/]+\.py)`", MAP)
    paths = [name if name.startswith("cloister/") else f"cloister/{name}" for name in named]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_reading_order_is_numbered_short_and_without_repeats() -> None:
    entries = re.findall(r"^(\d+)\. `(cloister/[\w/]+\.py)`: \S.*\.$", MAP, re.M)
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    assert 40 <= len(entries) <= LONGEST_READING_ORDER
    assert len({path for _, path in entries}) == len(entries)


def test_the_picture_has_every_room_on_its_floor() -> None:
    picture = MAP.partition("floor  room")[2].partition("```")[0]
    rows = re.findall(r"^(\d+) +(\w+) +\S", picture, re.M)
    assert {room: int(floor) for floor, room in rows} == ROOMS
    floors = [int(floor) for floor, _ in rows]
    assert floors == sorted(floors, reverse=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_tests_named_in_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / target).exists(), target
    tests = re.findall(r"`(test_\w+)`", text) if page.name != "api.md" else []  # there: metrics
    for name in tests:
        assert f"def {name}(" in TESTS, name


def _verbs(words: list[str]) -> list[str]:
    """The words that name a command, through its groups."""
    group: click.Command | None = command_line()
    verbs = []
    for word in words:
        if not isinstance(group, click.Group):
            break
        group = group.commands.get(word)
        verbs.append(word)
    return verbs


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_shown_have_options_that_exist(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^\$ cloister (.+)$", text, re.M):
        words = shlex.split(line)
        assert run([*_verbs(words), "--help"]) == 0
        shown = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option in shown, line


@pytest.mark.parametrize("name", ["from-flower", "from-trainer", "data-and-bases"])
def test_recipe_fields_that_a_page_names_exist(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    sections = Recipe().sections()
    named = [
        (section, key)
        for section, key in re.findall(r"`(\w+)\.(\w+)(?: = [^`]+)?`", text)
        if section in sections  # and not a file's name
    ]
    assert named
    for section, key in named:
        assert hasattr(sections[section], key), f"{section}.{key}"


def test_every_page_has_its_place_in_the_navigation() -> None:
    """A page outside of mkdocs.yml is built and found by nobody."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"[\w/-]+\.md$", config, re.M)
    present = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(present)
    for part in ("Tutorials", "How-to", "Explanation", "Reference"):
        assert f"- {part}:" in config


def test_every_recipe_on_the_page_of_tasks_is_valid_and_each_kind_is_told() -> None:
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    recipes = re.findall(r"```toml\n(.*?)```", text, re.S)
    kinds = [parse_recipe(recipe).task.kind for recipe in recipes]
    assert len(kinds) == 7
    assert {*kinds, "causal-lm"} == set(BUILT_IN)
    assert all(f"| `{kind}` |" in text for kind in BUILT_IN)


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
