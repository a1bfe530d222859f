"""Runs programs in forks of one process that has already imported what they need."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVE = """
import json, os, sys, traceback
exec(compile(sys.argv[1], "<before>", "exec"))
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(job["stdin"], os.O_RDONLY | os.O_NOCTTY), 0)
        sys.stdin = open(0, closefd=False)
        for number in (1, 2):
            os.dup2(os.open(job["said"][number - 1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(job["folder"])
        code = 1
        try:
            exec(compile(job["program"], "<script>", "exec"), {"__name__": "__main__"})
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Forks:
    """A process that waits for programs.

    Attributes:
        process: It.
        said: The files that take what a program prints: stdout, stderr.
    """

    process: subprocess.Popen[str]
    said: tuple[Path, Path]

    def run(
        self, program: str, folder: Path | None = None, stdin: str = "/dev/null"
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program in a fork; its exit code and what it printed.

        Args:
            program: Python.
            folder: Where it runs; None: where its output is kept.
            stdin: The file that it reads.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        job = {
            "program": program,
            "folder": str(folder or self.said[0].parent),
            "stdin": stdin,
            "said": [str(path) for path in self.said],
        }
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        out, err = (path.read_text() for path in self.said)
        return subprocess.CompletedProcess([program], code, out, err)


@contextmanager
def forks(folder: Path, before: str) -> Iterator[Forks]:
    """Yields what runs programs in forks of a process that has run `before`.

    Args:
        folder: Where output is kept meanwhile.
        before: Python, whose imports the programs find loaded.
    """
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, before],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as process:
        yield Forks(process, (folder / "stdout", folder / "stderr"))
        assert process.stdin is not None
        process.stdin.close()
