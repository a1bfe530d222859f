"""The reference pages agree with the code."""

from enum import Enum

import pytest

import cloister
from tools import reference
from tools.reference import DOCS, PAGES, markdown


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name: str) -> None:
    assert reference.is_current(name, PAGES[name]()), "run: make reference"


def test_every_public_name_and_command_is_there() -> None:
    names = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in cloister.__all__:
        assert name.startswith("_") or f"\n## cl.{name}\n" in names
    commands = (DOCS / "commands.md").read_text(encoding="utf-8")
    for command in (
        "## cloister simulate",
        "### cloister site status",
        "### cloister ledger verify",
    ):
        assert f"\n{command}\n" in commands


def test_a_page_that_is_not_current_is_seen() -> None:
    assert not reference.is_current("api.md", PAGES["api.md"]() + "more")
    assert not reference.is_current("nowhere.md", "")


class Colour(Enum):
    RED = "red"


def painted(
    wall: "str", *, colour: Colour = Colour.RED, by: object = object(), rest: "tuple[int, ...]" = ()
) -> "None":
    """Paints.

    >>> painted("north")

    Args:
        wall: Which,
            of all.
        by: Whom.

    Returns:
        Nothing,
        at last.
    """


def test_a_docstring_becomes_markdown() -> None:
    assert markdown(str(painted.__doc__).replace("\n    ", "\n")).split("\n") == [
        "Paints.",
        "",
        "```python",
        '>>> painted("north")',
        "```",
        "",
        "**Args**",
        "",
        "- `wall`: Which, of all.",
        "- `by`: Whom.",
        "",
        "**Returns**",
        "",
        "Nothing, at last.",
        "",
    ]


def test_a_signature_has_neither_addresses_nor_quotes() -> None:
    lines = reference._signature(painted).split("\n")
    assert lines == [
        "(",
        "    wall: str,",
        "    *,",
        "    colour: tests.tools.test_reference.Colour = Colour.RED,",
        "    by: object = …,",
        "    rest: tuple[int, ...] = (),",
        ") -> None",
    ]
