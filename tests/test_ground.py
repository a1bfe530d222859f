"""Rules for the tests and the code: length of files, ports, processes, names."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest

from tests.support.ports import free_port
from tests.support.processes import family, tagged

ROOT = Path(__file__).parents[1]
# Ends or finds processes by what they are called, and so a stranger's too.
BY_NAME = re.compile(r"\b(pkill|killall|pgrep|pidof|skill)\b|taskkill.*/im", re.IGNORECASE)
SCRIPTS = [
    path
    for room in ("cloister", "tests", "demos", "benchmarks", "simulations", "tools", "deploy")
    for path in sorted((ROOT / room).rglob("*"))
    if path.is_file() and path.suffix not in {".pyc", ".png", ".safetensors"}
]


def by_name(text: str) -> list[str]:
    """Lines that end or find processes by name."""
    return [line for line in text.splitlines() if BY_NAME.search(line)]


def test_no_script_ends_processes_by_name() -> None:
    assert by_name("subprocess.run(['pkill', '-f', port])")
    assert by_name("\tkillall cloister")
    assert not by_name("os.kill(process.pid, signal.SIGKILL)")
    files = [*SCRIPTS, ROOT / "Makefile"]
    assert len(files) > 300
    found = {
        str(path.relative_to(ROOT)): by_name(path.read_text(encoding="utf-8"))
        for path in files
        if path != Path(__file__)
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_family_s_daemons_are_ended_and_a_namesake_lives_on() -> None:
    """A stranger whose command line is the same to the letter."""
    port = str(free_port())
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)", port]
    # The daemon's parent ends at once, and the daemon has a session of its own.
    parent = f"import subprocess; subprocess.Popen({sleeper!r}, start_new_session=True)"
    stranger = subprocess.Popen(sleeper)
    try:
        with family() as ours:
            environment = {**os.environ, **ours}
            subprocess.run([sys.executable, "-c", parent], check=True, env=environment)
            (tag,) = ours.values()
            (daemon,) = tagged(tag)
            assert daemon.cmdline()[-1] == port
        assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_port_is_handed_out_once() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    local = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if local.exists():  # never one that a connection may take meanwhile
        assert max(ports) < int(local.read_text().split()[0])


def test_every_marker_is_known_and_slow_tests_have_their_target() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--strict-markers" in settings["addopts"]
    assert [marker.split(":")[0] for marker in settings["markers"]] == ["nightly"]
    makefile = (ROOT / "Makefile").read_text()
    targets = dict(re.findall(r"^(test|nightly):[^\n]*\n((?:\t[^\n]*\n)+)", makefile, re.M))
    assert '-m "not nightly"' in targets["test"]
    assert "-m" not in re.sub(r"-m pytest", "", targets["nightly"])  # everything


def test_a_worker_of_the_tests_has_one_thread() -> None:
    threads = "import torch; print(torch.get_num_threads())"
    asked = subprocess.run([sys.executable, "-c", threads], capture_output=True, check=True)
    assert asked.stdout.strip() == b"1"  # also in the processes that a test starts


@pytest.mark.parametrize("name", ["pytest-xdist", "execnet"])
def test_what_runs_tests_in_parallel_is_pinned(name: str) -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert [pin for pin in pins if pin.startswith(f"{name}==")]


def test_no_class_name_has_two_meanings() -> None:
    """A reader who meets a name knows which class it is."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "cloister").rglob("*.py")):
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.M):
            found.setdefault(name, []).append(path.name)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


# Names of modules that several rooms have, with one meaning: `page` writes a page, `config` is a
# section of a file, `cli/X` is the command of `X`. Another name stands for one module.
SHARED_NAMES = """
access app backup build canaries card central certificates charts compare config coordinator
doctor environment export files folder formats gate gradients guard index items labels layers
ledger ledgers log measured metrics model offline opening page personal plan plugins ports
public_start rates records registry report rules run running sealing secure service site source
sources status store study sweep table texts units words writing
"""


def test_no_module_name_has_two_meanings() -> None:
    names = [path.stem for path in (ROOT / "cloister").rglob("*.py") if path.stem != "__init__"]
    assert sorted({name for name in names if names.count(name) > 1}) == SHARED_NAMES.split()


def test_no_file_is_longer_than_one_concept() -> None:
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "cloister").rglob("*.py")
    }
    assert [str(path) for path, length in lengths.items() if length > 400] == []
    assert sorted(lengths.values())[len(lengths) // 2] < 150


def test_the_top_of_the_project_holds_what_is_meant_for_it() -> None:
    """A note that somebody left there would be part of the project."""
    files = {path.name for path in ROOT.iterdir() if path.is_file() or path.is_symlink()}
    known = {".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CITATION.cff", "LICENSE"}
    known |= {"CONTRIBUTING.md", "README.md", "SECURITY.md", "Makefile", "constraints.txt"}
    assert {name for name in files if name.endswith((".md", ".txt"))} <= known
    assert known <= files
