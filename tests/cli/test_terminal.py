"""Text from another party is shown on a terminal without being executed there."""

import ast
import io
import logging
import re
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table

from cloister.cli import main
from cloister.cli.streams import Printing, printing, say_error
from cloister.cli.terminal import Terminal
from cloister.errors import BadFileError
from cloister.printable import one_line, printable

PACKAGE = Path(__file__).parents[2] / "cloister"
# Recolours, moves the cursor, names a window, writes over the line, turns the direction, links.
HOSTILE = (
    "\x1b[31mred",
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b]8;;http://x\x1b\\link",
    "over\rwritten",
    "\x9b31m",
    "\u202egnp.exe",
    "\ud800",
    "a\x00b",
    "\x7f",
    "\u2028next",
    "[link=http://x]a[/link]",
    "[bold]b[/]",
    ":smile:",
)
ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u061c\u200e\u200f"
    "\u202a-\u202e\u2066-\u2069]"
)
texts = (
    st.text(st.characters())
    | st.sampled_from(HOSTILE)
    | st.lists(st.sampled_from(HOSTILE)).map("".join)
)


@given(texts)
@example("\x1b[2J")
def test_no_character_acts(text: str) -> None:
    assert not ACTS.search(printable(text))
    assert printable(printable(text)) == printable(text)
    line = one_line(text, 30)
    assert not ACTS.search(line)
    assert "\n" not in line
    assert len(line) <= 31


@given(texts.filter(lambda text: not ACTS.search(text)))
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def written(say: object) -> str:
    """What reaches stdout, stderr and the log's stream while something is printed."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        with printing():
            say()  # type: ignore[operator]
    finally:
        sys.stdout, sys.stderr = before
    return out.getvalue() + err.getvalue()


@given(texts)
def test_every_way_to_print_is_clean(text: str) -> None:
    def say() -> None:
        typer.echo(text)
        typer.echo(text, err=True)
        print(text)  # noqa: T201
        say_error(text)
        terminal = Terminal()
        terminal.print(text)
        terminal.print(text, soft_wrap=True)
        table = Table(box=None)
        table.add_column(text)
        table.add_row(text)
        terminal.print(table)
        logger = logging.getLogger("test_terminal")
        logger.propagate = False
        logger.handlers = [logging.StreamHandler(sys.stderr)]
        logger.warning("%s", text)
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("it")

    found = written(say)
    assert not ACTS.search(found)
    # No markup: it is text. A longer one is cut into lines, and blanks at the end of one are lost.
    if text.isascii() and text.isprintable() and "[" in text and " " not in text and len(text) < 60:
        assert found.count(text) >= 8


def test_markup_of_ours_still_colours() -> None:
    terminal = Terminal()
    terminal._file = io.StringIO()
    terminal._force_terminal = True
    terminal.print("[red]ours[/] \x1b[2J", markup=True)
    assert "\\x1b[2J" in terminal._file.getvalue()
    assert "ours" in terminal._file.getvalue()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_command_that_fails_says_so_in_characters_that_do_not_act(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise BadFileError(f"{text}: no such file" + "x" * 10_000)

    app = typer.Typer()
    app.command()(fails)
    monkeypatch.setattr(main, "command_line", lambda: typer.main.get_command(app))
    assert main.run([]) == BadFileError.exit_code
    told = capsys.readouterr().err
    assert told.startswith("cloister: ")
    assert not ACTS.search(told)
    assert len(told) < 5000


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_an_argument_is_repeated_as_it_is_written(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever pastes a command, or names a file that somebody sent, pastes its characters."""
    for command in (["ledger", "verify", text], ["audit", "verify", text, "--key", text], [text]):
        if "\x00" not in text and "\ud800" not in text:
            assert main.run(command) != 0
            captured = capsys.readouterr()
            assert not ACTS.search(captured.out + captured.err)


def test_a_table_in_a_pipe_is_not_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table(box=None)
    for name in ("form", "logits differ by"):
        table.add_column(name)
    table.add_row("a name of several words " * 4, "figure " * 10)
    monkeypatch.delenv("COLUMNS", raising=False)
    Terminal().print(table)
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setenv("COLUMNS", "60")
    Terminal().print(table)
    assert len(capsys.readouterr().out.splitlines()) > 2


def test_nobody_asks_what_is_no_terminal_for_colours() -> None:
    stream = Printing(sys.stdout)
    assert not stream.isatty()
    assert stream.writable()


def test_there_is_no_other_way_to_a_terminal() -> None:
    """In the package rich's console is made in one file, and no stream is written past `print`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name in ("terminal.py", "streams.py"):
            continue
        text = path.read_text(encoding="utf-8")
        if not any(word in text for word in ("rich", "__stdout__", "__stderr__")):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                assert "Console" not in {alias.name for alias in node.names}, path
            if isinstance(node, ast.Attribute) and node.attr in ("__stdout__", "__stderr__"):
                pytest.fail(f"{path} writes past sys.stdout")
