"""Everything that a machine without internet needs: packages with their hashes, and a base model.

wheels/            every package, as pip downloads it for this kind of machine
requirements.txt   their names, versions and SHA-256
model/             the base model
install.sh         makes a virtual environment from these alone
SHA256SUMS         of all of it
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.files import write_whole

INSTALL = """\
#!/bin/sh
# Installs from this folder alone; nothing is fetched.
set -eu
cd "$(dirname "$0")"
sha256sum --check --quiet SHA256SUMS
python3 -m venv "${1:-.venv}"
"${1:-.venv}/bin/python" -m pip install --no-index --find-links wheels --require-hashes \\
    -r requirements.txt
echo "installed; the base model is in $(pwd)/model: site.model in site.toml names it"
"""
WHEEL = re.compile(r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[^-]+)(-[^-]+){3,4}\.whl")


def collect(out: Path, source: Path, model: Path | None, extra: Sequence[str] = ()) -> int:
    """Collects it; returns the number of packages.

    Args:
        out: A new folder.
        source: Cloister's own sources, with `constraints.txt`.
        model: The base model's folder; None: without one.
        extra: More options for pip (an index, a platform).

    Raises:
        UsageError: The folder is there already, or the sources are not.
        BadFileError: The model is no folder, or something cannot be written.
        NetworkError: pip could not get a package.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already; name another folder")
    if not (source / "constraints.txt").is_file():
        raise UsageError(f"{source}: not cloister's sources; --source names them")
    if model is not None and not model.is_dir():
        raise BadFileError(f"{model}: no folder of a base model")
    wheels = out / "wheels"
    try:
        wheels.mkdir(parents=True)
        if model is not None:
            shutil.copytree(model, out / "model")
    except OSError as error:
        raise BadFileError(f"{out}: cannot be written ({error})") from error
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "wheel", "--quiet", "--wheel-dir", str(wheels), "-c",
         str(source / "constraints.txt"), *extra, str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise NetworkError(
            f"{out}: pip could not collect the packages: {done.stderr.strip()[-400:]}"
        )
    return seal(out)


def seal(out: Path) -> int:
    """Writes the hashes and the installer of what was collected; returns the number of packages.

    Raises:
        BadFileError: A file among the packages is no wheel.
    """
    lines = []
    for wheel in sorted((out / "wheels").iterdir()):
        match = WHEEL.fullmatch(wheel.name)
        if match is None:
            raise BadFileError(f"{wheel}: no wheel; a machine without internet cannot build it")
        lines.append(f"{match['name']}=={match['version']} --hash=sha256:{_sha256(wheel)}\n")
    write_whole(out / "requirements.txt", "".join(lines).encode())
    write_whole(out / "install.sh", INSTALL.encode(), mode=0o755)
    sums = [
        f"{_sha256(path)}  {path.relative_to(out)}\n"
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS"
    ]
    write_whole(out / "SHA256SUMS", "".join(sums).encode())
    return len(lines)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
