"""Scripts that users run, each in a fork of one process that has loaded what they import.

Loading torch, transformers and peft takes seconds; nothing of cloister is in that process.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FORKS = """
import json, os, sys, traceback
import peft, torch, transformers

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        for number in (1, 2):
            os.dup2(os.open(job["said"][number - 1], os.O_WRONLY | os.O_CREAT), number)
        os.chdir(job["folder"])
        code = 1
        try:
            exec(compile(job["program"], "<script>", "exec"), {"__name__": "__main__"})
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

Run = Callable[[str, Path], str]


@contextmanager
def plain_scripts(folder: Path) -> Iterator[Run]:
    """Yields what runs a program in a folder, and gives what it prints; one that fails, fails.

    Args:
        folder: Where its output is kept meanwhile.
    """
    said = [str(folder / name) for name in ("stdout", "stderr")]
    with subprocess.Popen(
        [sys.executable, "-c", FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as forks:
        assert forks.stdin is not None
        assert forks.stdout is not None

        def run(program: str, place: Path) -> str:
            for name in said:
                Path(name).unlink(missing_ok=True)
            job = {"program": program, "folder": str(place), "said": said}
            forks.stdin.write(json.dumps(job) + "\n")
            forks.stdin.flush()
            code = forks.stdout.readline().strip()
            assert code == "0", Path(said[1]).read_text()
            return Path(said[0]).read_text()

        yield run
        forks.stdin.close()
