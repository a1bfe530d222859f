"""Scripts that users run, each in a fork of one process that has loaded what they import.

Loading torch, transformers and peft takes seconds; nothing of cloister is in that process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.forks import forks

Run = Callable[[str, Path], str]


@contextmanager
def plain_scripts(folder: Path) -> Iterator[Run]:
    """Yields what runs a program in a folder, and gives what it prints; one that fails, fails.

    Args:
        folder: Where its output is kept meanwhile.
    """
    with forks(folder, "import peft, torch, transformers") as loaded:

        def run(program: str, place: Path) -> str:
            done = loaded.run(program, place)
            assert done.returncode == 0, done.stderr
            return done.stdout

        yield run
