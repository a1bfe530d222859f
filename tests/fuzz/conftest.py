"""Counts what the fuzzers tried, for `python -m tests.fuzz`."""

import os
from pathlib import Path

import pytest

from tests.support import fuzzing


def pytest_sessionfinish(session: pytest.Session) -> None:
    if "FUZZ_COUNTER" in os.environ:
        with Path(os.environ["FUZZ_COUNTER"]).open("a", encoding="utf-8") as file:
            file.write(f"{fuzzing.tried}\n")
