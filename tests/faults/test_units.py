"""The shipped systemd units are valid, and a federation runs under them."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.deployment.coordinator.journal import RunStatus
from tests.support.federation import Federation, check_history, federation, wait_for
from tests.support.systemd import systemd, why_it_does_not_start, why_not

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
# What `systemd-analyze security` may say at most, of 10.
MOST_EXPOSED = 2.0


def settings(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def test_there_are_units_for_both_sides() -> None:
    assert [unit.stem for unit in UNITS] == ["cloister-server", "cloister-site"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_no_unit_runs_as_root_or_without_bounds(unit: Path) -> None:
    found = settings(unit.read_text())
    assert found["User"] == ["cloister"]
    assert found["Restart"] == ["always"]
    assert int(found["TimeoutStopSec"][0]) == 10  # above processes.GRACE
    for name in ("LimitNOFILE", "TasksMax", "MemoryMax", "StateDirectory", "LimitCORE"):
        assert found[name][0] not in ("", "infinity"), name
    assert found["CapabilityBoundingSet"] == [""]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze: not here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_exposed_to_little(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    score = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    if score is None:
        pytest.skip(f"this systemd-analyze rates no files: {done.stderr[:100]}")
    assert float(score.group(1)) <= MOST_EXPOSED, done.stdout


def test_devices_are_closed_in_the_units_and_opened_by_the_drop_in_for_gpus_alone() -> None:
    for unit in UNITS:
        found = settings(unit.read_text())
        assert (found["PrivateDevices"], found["DevicePolicy"]) == (["true"], ["closed"])
    opened = {part.stem for part in FOLDER.glob("*.conf") if "DeviceAllow" in part.read_text()}
    assert opened == {"gpu"}
    found = settings((FOLDER / "gpu.conf").read_text())
    devices = {line.removesuffix(" rw") for line in found["DeviceAllow"]}
    assert devices >= {"char-nvidia", "char-nvidiactl", "char-nvidia-uvm", "/dev/kfd"}
    assert found["PrivateDevices"] == found["PrivateUsers"] == ["false"]
    assert found["ProcSubset"] == ["all"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze: not here")
@pytest.mark.parametrize("part", sorted(FOLDER.glob("*.conf")), ids=lambda part: part.stem)
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_drop_in_is_one_that_systemd_takes(unit: Path, part: Path, tmp_path: Path) -> None:
    """Together with its unit: no unknown name, no value that is ignored."""
    text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit.read_text())
    (tmp_path / unit.name).write_text(text)
    (tmp_path / f"{unit.name}.d").mkdir()
    shutil.copy(part, tmp_path / f"{unit.name}.d")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "info"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert said == []


def as_here(unit: Path, name: str, home: Path, command: str) -> str:
    """A unit as shipped, but for where this machine has Python, the user and the state.

    Nothing that restricts it is touched: what lies in a home folder here is shown to it, read-only.
    """
    text = unit.read_text()
    for old, new in (
        ("User=cloister\n", "User=nobody\n"),
        ("Group=cloister\n", "Group=nogroup\n"),
        ("StateDirectory=cloister\n", f"StateDirectory={home.name}\n"),
        ("/var/lib/cloister\n", f"{home}\n"),
        ("Standard" + "Output=journal\n", f"StandardOutput=append:{home}/{name}.out\n"),
        ("StandardError=journal\n", f"StandardError=append:{home}/{name}.out\n"),
    ):
        assert old in text
        text = text.replace(old, new)
    command = f"{sys.executable} -m cloister {command}"
    text, count = re.subn(r"ExecStart=.*", f"ExecStart={command}", text)
    assert count == 1
    places = sorted({str(Path(sys.base_prefix).resolve()), sys.prefix, str(ROOT)})
    shown = "".join(f"BindReadOnlyPaths={place}\n" for place in places)
    python = f"Environment=PYTHONPATH={ROOT} OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1\n"
    # A home folder is hidden whole, and what is shown of it is put into its place.
    text = text.replace("ProtectHome=true\n", f"ProtectHome=tmpfs\n{shown}{python}")
    return text.replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n", 1)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of state, where systemd expects one."""
    place = Path("/var/lib") / f"cloister-test-{secrets.token_hex(4)}"
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def give_away(home: Path) -> None:
    """All of it to the user of the units, as whoever installs them does."""
    for path in (home, *home.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")


@pytest.mark.nightly
@pytest.mark.skipif(why_not() is not None, reason=f"no systemd can run here: {why_not()}")
def test_a_federation_runs_under_the_units_as_shipped(home: Path, tmp_path: Path) -> None:
    """All of their restrictions: a study from its first question to its certificates."""
    if (why := why_it_does_not_start(tmp_path)) is not None:
        pytest.skip(f"systemd does not start in namespaces here: {why}")
    with federation(home) as made:
        study = made.recipe(2)
        assert study.federation.num_rounds == 2
        give_away(home)
        units = {
            "server": ("cloister-server.service", f"server start {made.server.path}"),
            "east": ("cloister-site.service", f"site start {made.sites['east'].path}"),
            "west": ("cloister-site.service", f"site start {made.sites['west'].path}"),
            "study": (
                "cloister-server.service",
                f"run start {home}/study.toml --name triage --server {made.server.path} --watch",
            ),
        }
        for name, (unit, command) in units.items():
            text = as_here(FOLDER / unit, name, home, command)
            (tmp_path / f"{name}.service").write_text(text)
        with systemd(tmp_path, *(f"{name}.service" for name in units)):
            wait_for("the study under the units", lambda: _is_over(made))
            assert made.standing("triage") is RunStatus.FINISHED, _told(made)
            _check_confinement(made)
        check_history(made, "triage")
        found = sorted((made.server.run("triage") / "certificates").iterdir())
        assert len(found) == 2


def _is_over(made: Federation) -> bool:
    place = made.server.run("triage") / "run.json"
    if not place.exists():
        return False
    standing = json.loads(place.read_text())["standing"]
    if standing in ("failed", "interrupted"):
        raise AssertionError(_told(made))
    return bool(standing == "finished")


def _told(made: Federation) -> str:
    return "".join(
        f"\n== {path}\n{path.read_text()[-3000:]}"
        for path in (*made.root.glob("*.out"), *made.root.rglob("*.log"))
    )


def _check_confinement(made: Federation) -> None:
    """What the kernel says of the processes that still run."""
    seen = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            words = (status.parent / "cmdline").read_bytes().split(b"\0")
            lines = [line for line in status.read_text().splitlines() if ":\t" in line]
            told = dict(line.split(":\t", 1) for line in lines)
        except (OSError, ValueError):  # ended meanwhile
            continue
        if not any(str(made.root).encode() in word for word in words) or b"-m" not in words:
            continue
        modules = [word.decode() for word in words if word.startswith(b"cloister.")]
        part = modules[-1] if modules else words[words.index(b"-m") + 1].decode()
        seen.add(part)
        assert told["Uid"].split()[0] != "0", part
        assert told["NoNewPrivs"].strip() == "1", part
        assert told["Seccomp"].strip() == "2", part
        assert {told[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}, part
    assert seen >= {
        "cloister",
        "cloister.deployment.flower.superlink",
        "cloister.deployment.coordinator.gate",
        "cloister.deployment.coordinator.executor",
        "cloister.deployment.flower.supernode",
        "cloister.deployment.site.agent",
    }
