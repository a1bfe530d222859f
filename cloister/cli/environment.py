"""`cloister env`: versions and hardware for a bug report, and nothing private.

The report has no host name, user name, path or environment variable, so it can be posted as it is.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import typer
from packaging.markers import Marker
from packaging.requirements import Requirement

from cloister import __version__
from cloister.cli.arguments import AsJson

# The lock files of a source checkout; an installed wheel has none.
LOCKS = Path(__file__).parents[2] / "locks"
# A package in a lock file: `name==version`, and its environment marker.
LOCKED = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\\n]+))?", re.M)


def environment(as_json: AsJson = False) -> None:
    """Print versions and hardware for a bug report, without anything private.

    Example: cloister env
    """
    found = describe()
    if as_json:
        typer.echo(json.dumps(found))
        return
    for section, values in found.items():
        if isinstance(values, dict):
            typer.echo(f"{section}:")
            for name, value in values.items():
                typer.echo(f"  {name:<22} {_shown(value)}")
        else:
            typer.echo(f"{section:<24} {_shown(values)}")


def describe(locks: Path = LOCKS) -> dict[str, Any]:
    """Returns what `cloister env` prints, as JSON values.

    Args:
        locks: The folder of lock files; if it is missing, the report states that.
    """
    return {
        "cloister": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": _system(),
        "hardware": _hardware(),
        "packages": _packages(),
        "locks": _locks(locks),
    }


def _system() -> dict[str, Any]:
    """Returns the operating system and the kernel's version numbers.

    The rest of the kernel's version is left out, because it may contain a host name."""
    release = re.match(r"[\d.]*\d", platform.release())
    try:
        distribution = platform.freedesktop_os_release()
        name = f"{distribution['NAME']} {distribution.get('VERSION_ID', '')}".strip()
    except (OSError, KeyError):  # not a Linux that follows freedesktop.org
        name = platform.system()
    return {
        "name": name,
        "kernel": f"{platform.system()} {release[0] if release else ''}".strip(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "encoding": sys.stdout.encoding,
    }


def _hardware() -> dict[str, Any]:
    """CPU, memory, and the GPUs that torch can use."""
    found: dict[str, Any] = {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": _memory_gib()}
    try:
        import torch
    except Exception as error:  # the report may be about a broken installation
        return {**found, "gpus": None, "torch": f"cannot be imported ({type(error).__name__})"}
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        **found,
        "gpus": [torch.cuda.get_device_name(number) for number in gpus],
        "cuda": torch.version.cuda,
    }


def _cpu() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return model[1].strip() if model else platform.processor() or None


def _memory_gib() -> float | None:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not a name that this system knows
        return None
    return round(pages * size / 2**30, 1)


def _packages() -> dict[str, str | None]:
    """Versions of Cloister's requirements; None: not installed. Missing extras are left out."""
    found: dict[str, str | None] = {}
    for line in metadata.requires("cloister") or ():
        asked = Requirement(line)
        version = _version(asked.name)
        is_extra = asked.marker is not None and "extra" in str(asked.marker)
        if asked.name != "cloister" and not (is_extra and version is None):
            found[asked.name] = version
    return dict(sorted(found.items()))


def _locks(folder: Path) -> dict[str, Any] | None:
    """Counts, for each lock file, the packages that are installed as locked; None: no lock file."""
    found = {path.stem: _compared(path) for path in sorted(folder.glob("*.txt"))}
    return found or None


def _compared(path: Path) -> dict[str, Any]:
    locked = {
        match["name"]: match["version"]
        for match in LOCKED.finditer(path.read_text(encoding="utf-8"))
        if match["marker"] is None or Marker(match["marker"]).evaluate()
    }
    installed = {name: _version(name) for name in locked}
    return {
        "packages": len(locked),
        "as_locked": sum(installed[name] == locked[name] for name in locked),
        "other_version": {
            name: version
            for name, version in installed.items()
            if version is not None and version != locked[name]
        },
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _shown(value: Any) -> str:
    match value:
        case None | []:
            return "none"
        case {"packages": packages, "as_locked": same, "other_version": others}:
            more = "; other version: " + ", ".join(f"{n} {v}" for n, v in others.items())
            return f"{same} of {packages} packages as locked" + (more if others else "")
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)
