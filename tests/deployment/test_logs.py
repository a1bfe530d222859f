"""Logs are one JSON object a line, and no exception's text is in them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.deployment import logs

ROOT = str(Path(logs.__file__).parents[1])
SECRET = "patient Jane Doe, positive"
HEAD = f"""
import asyncio, logging, sys, threading
sys.path.insert(0, {ROOT!r})
from cloister.deployment.logs import log_json

SECRET = {SECRET!r}

class Odd(Exception):
    pass

def fail():
    raise Odd(SECRET)

log_json("agent")
log = logging.getLogger("cloister.client")
"""
WAYS = {
    "logged": """
try: fail()
except Odd: log.exception("round %d", 3)
""",
    "logged with its cause": """
try:
    try: fail()
    except Odd as error: raise ValueError("and more of " + str(error)) from error
except ValueError: log.error("round 3", exc_info=True)
""",
    "quoted in the line": """
try: fail()
except Odd as error: log.exception("failed: %s", error)
""",
    "given to a logger of a library": """
try: fail()
except Odd as error: logging.getLogger("some.library").error("failed", exc_info=error)
""",
    "logged by structlog's way": """
try: fail()
except Odd as error: log.warning("failed", exc_info=(type(error), error, error.__traceback__))
""",
    "a group": """
log.error("failed", exc_info=ExceptionGroup("of " + SECRET, [Odd(SECRET)]))
""",
    "with notes": """
try: fail()
except Odd as error:
    error.add_note(SECRET)
    log.exception("failed")
""",
    "not caught": "fail()",
    "not caught, with a cause": """
try: fail()
except Odd as error: raise ValueError(SECRET) from error
""",
    "not caught in a thread": """
thread = threading.Thread(target=fail)
thread.start(); thread.join()
""",
    "not caught in a timer": """
timer = threading.Timer(0, fail)
timer.start(); timer.join()
""",
    "not caught in a task": """
async def main():
    task = asyncio.create_task(later())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
async def later():
    fail()
asyncio.run(main())
""",
    "not caught where nobody can": """
class Thing:
    def __del__(self): fail()
thing = Thing()
del thing
""",
}


def told(code: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stdout == ""
    return done.stderr, done.returncode


@pytest.mark.parametrize("code", WAYS.values(), ids=WAYS.keys())
def test_no_exception_s_text_is_ever_written(code: str) -> None:
    text, _ = told(code)
    assert "Jane" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    assert all(line["part"] == "agent" for line in lines)
    assert any("error" in line and line["at"] for line in lines) or "group" in code.lower()


def test_a_line_says_who_what_and_when() -> None:
    text, code = told('log.info("round %d", 3)\nlog.warning("a\\nb")')
    first, second = (json.loads(line) for line in text.splitlines())
    assert {key: first[key] for key in ("text", "level", "logger", "part")} == {
        "text": "round 3",
        "level": "info",
        "logger": "cloister.client",
        "part": "agent",
    }
    assert first["time"].endswith("Z")
    assert second["text"] == "a\nb"
    assert code == 0


def test_an_error_that_nobody_caught_still_ends_the_process() -> None:
    text, code = told("fail()")
    line = json.loads(text)
    assert (line["error"], line["level"], code) == ("Odd", "critical", 1)


def test_the_end_that_was_asked_for_is_no_error() -> None:
    assert told("sys.exit(3)") == ("", 3)
    assert told("raise KeyboardInterrupt")[0] == ""


def test_flower_says_everything_once() -> None:
    text, _ = told(
        'from flwr.common.logger import FLOWER_LOGGER\nlog_json("agent")\nFLOWER_LOGGER.info("x")'
    )
    assert [json.loads(line)["text"] for line in text.splitlines()] == ["x"]
