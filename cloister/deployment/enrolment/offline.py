"""Collects what a machine without internet needs: packages with their hashes, and a base model.

wheels/            every package, as pip downloads it for this kind of machine
requirements.txt   their names, versions and SHA-256
model/             the base model
install.sh         checks all of this, then makes a virtual environment from these files only
signer.crt         certificate of the signer: the coordinator's authority, or a separate key
SHA256SUMS         of every file here, in sha256sum's format
SHA256SUMS.sig     their signature (ECDSA, SHA-256), as `openssl dgst -verify` takes it

It is safe only if the receiver learns the signer's fingerprint over another channel. If the
coordinator's authority signs, this is the fingerprint that a site also compares for its invite.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from importlib.resources import files
from pathlib import Path

from cloister import __version__
from cloister.deployment.enrolment.authority import Authority
from cloister.errors import BadFileError, NetworkError, UsageError
from cloister.files import write_whole

WHEEL = re.compile(r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[^-]+)(-[^-]+){3,4}\.whl")
# The first line separates this from everything else that an authority signs; sha256sum skips it.
FORMAT = "# cloister bundle 1, made {now} by cloister {version}\n"
UNLISTED = ("SHA256SUMS", "SHA256SUMS.sig")
# Characters that sha256sum escapes, or that act on a terminal.
UNFIT = re.compile(r"[\\\x00-\x1f\x7f]")
BUILDERS = ("hatchling", "setuptools", "wheel")


def locked_build() -> str:
    """The lock file for the installed build of torch: `cpu` or `cuda`."""
    return "cpu" if metadata.version("torch").endswith("+cpu") else "cuda"


def collect(
    out: Path,
    source: Path,
    model: Path | None,
    signer: Authority,
    now: datetime,
    lock: str,
    extra: Sequence[str] = (),
) -> int:
    """Collects packages and base, checked against the lock's hashes; returns how many packages.

    Args:
        out: A new folder.
        source: Cloister's own sources, with `locks/`.
        model: The base model's folder; None: without one.
        signer: The signing authority.
        now: The present time, with its zone.
        lock: Name of a lock file in `locks/`.
        extra: More options for pip (an index, a platform).

    Raises:
        UsageError: The folder exists already, the sources are missing, or a build tool is not
            installed.
        BadFileError: The model is not a folder, or a file cannot be written.
        NetworkError: pip could not get a package, or got one with another hash.
    """
    if out.exists():
        raise UsageError(f"{out}: exists already; name another folder")
    locked = source / "locks" / f"{lock}.txt"
    if not locked.is_file():
        raise UsageError(f"{source}: not the sources of cloister; name them with --source")
    if model is not None and not model.is_dir():
        raise BadFileError(f"{model}: not a folder of a base model; name one")
    if missing := [name for name in BUILDERS if not _is_installed(name)]:
        raise UsageError(
            f"{', '.join(missing)}: needed to build packages, and not installed; pip install "
            f"--require-hashes -r {source / 'locks' / 'build.txt'}"
        )
    wheels = out / "wheels"
    try:
        wheels.mkdir(parents=True)
        if model is not None:
            shutil.copytree(model, out / "model")
    except OSError as error:
        raise BadFileError(f"{out}: cannot be written ({error})") from error
    _pip(out, "--require-hashes", *extra, "-r", str(locked))
    _pip(out, "--no-deps", "--no-index", str(source))
    return seal(out, signer, now)


def seal(out: Path, signer: Authority, now: datetime) -> int:
    """Writes the installer and the signed hashes of all files; returns the number of packages.

    Raises:
        BadFileError: A package is not a wheel, a name or file cannot be listed, or a file cannot be
            written.
    """
    lines = []
    for wheel in sorted((out / "wheels").iterdir()):
        match = WHEEL.fullmatch(wheel.name)
        if match is None:
            raise BadFileError(
                f"{wheel}: not a wheel, which a machine without internet cannot build"
            )
        lines.append(f"{match['name']}=={match['version']} --hash=sha256:{_sha256(wheel)}\n")
    installer = files("cloister.deployment.enrolment").joinpath("installer.sh").read_bytes()
    try:
        write_whole(out / "requirements.txt", "".join(lines).encode())
        write_whole(out / "install.sh", installer, mode=0o755)
        write_whole(out / "signer.crt", signer.pem)
        text = FORMAT.format(now=now.isoformat(timespec="seconds"), version=__version__)
        text += "".join(f"{_sha256(path)}  {path.relative_to(out)}\n" for path in _listed(out))
        write_whole(out / "SHA256SUMS", text.encode())
        write_whole(out / "SHA256SUMS.sig", signer.sign(text.encode()))
    except OSError as error:
        raise BadFileError(f"{out}: cannot be written ({error})") from error
    return len(lines)


def _listed(out: Path) -> list[Path]:
    """Every file except the list and its signature."""
    found = []
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_symlink() or not (path.is_file() or path.is_dir()) or UNFIT.search(name):
            raise BadFileError(
                f"{name!r}: a link, a device, or a name with a control character or backslash; "
                "such a file cannot be bundled: rename or replace it"
            )
        if path.is_file() and name not in UNLISTED:
            found.append(path)
    return found


def _pip(out: Path, *words: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "wheel",
            "--quiet",
            "--no-build-isolation",
            "--wheel-dir",
            str(out / "wheels"),
            *words,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NetworkError(
            f"{out}: pip could not collect the packages: {done.stderr.strip()[-400:]}"
        )


def _is_installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
