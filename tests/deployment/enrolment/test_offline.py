"""What a machine without internet gets is signed; nothing that is not as signed is installed."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.deployment.enrolment.authority import fingerprint
from cloister.deployment.enrolment.offline import collect, seal
from cloister.errors import BadFileError, UsageError
from tests.support.papers import NOW, authority

ROOT = Path(__file__).parents[3]
TOLD = fingerprint(authority().pem)


def wheel(folder: Path, name: str = "some_thing", tag: str = "py3-none-any") -> Path:
    """A package that pip installs."""
    path, info = folder / f"{name}-1.2.3-{tag}.whl", f"{name}-1.2.3.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "value = 7\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n"
        )
        archive.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def collected(tmp_path: Path) -> Path:
    out = tmp_path / "offline"
    (out / "wheels").mkdir(parents=True)
    wheel(out / "wheels")
    (out / "model" / "part 1").mkdir(parents=True)
    (out / "model" / "config.json").write_text("{}")
    (out / "model" / "part 1" / "weights").write_bytes(bytes(range(256)))
    return out


def install(folder: Path, *words: object, path: str | None = None) -> tuple[int, str]:
    """Runs the installer; its code and what it says."""
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    done = subprocess.run(
        ["/bin/sh", str(folder / "install.sh"), *map(str, words)],
        cwd=folder.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def by_hand(folder: Path) -> bool:
    """Types the commands of docs/deployment.md; whether each of them is content."""
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```console\n(\$ cd offline\n.*?)```", text, re.S)
    lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    lines = [line for line in lines if not line.startswith(("cd ", "sh "))]
    assert len(lines) == 4, lines
    expected = TOLD.replace("-", "").upper()
    for line in lines:
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            return False
        if "-fingerprint" in line and expected not in done.stdout.replace(":", ""):
            return False
    return True


def test_everything_is_listed_with_its_hash(collected: Path) -> None:
    assert seal(collected, authority(), NOW) == 1
    (path,) = (collected / "wheels").iterdir()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (collected / "requirements.txt").read_text() == (
        f"some_thing==1.2.3 --hash=sha256:{digest}\n"
    )
    sums = (collected / "SHA256SUMS").read_text()
    listed = re.findall(r"^[0-9a-f]{64}  (.+)$", sums, re.M)
    assert listed == sorted(
        str(path.relative_to(collected))
        for path in collected.rglob("*")
        if path.is_file() and not path.name.startswith("SHA256SUMS")
    )
    assert "install.sh" in listed
    assert "2027-03-01" in sums.splitlines()[0]


def test_it_installs_what_was_signed(collected: Path, tmp_path: Path) -> None:
    seal(collected, authority(), NOW)
    code, said = install(collected, TOLD, "venv")
    assert code == 0, said
    shown = [
        str(tmp_path / "venv" / "bin" / "python"),
        "-c",
        "import some_thing as s; print(s.value)",
    ]
    assert subprocess.run(shown, capture_output=True, check=True).stdout == b"7\n"
    code, said = install(collected, TOLD, "venv")
    assert code == 1
    assert "name a new folder" in said
    assert by_hand(collected)


@pytest.mark.parametrize("places", [1, pytest.param(12, marks=pytest.mark.nightly)])
def test_every_byte_that_is_changed_is_refused(collected: Path, places: int) -> None:
    """At so many places of every file, and its end.

    By the installer; a changed installer by the commands that are typed.
    """
    seal(collected, authority(), NOW)
    assert install(collected, "--check", TOLD)[0] == 0
    count = 0
    for path in sorted(path for path in collected.rglob("*") if path.is_file()):
        content, mode = path.read_bytes(), path.stat().st_mode
        own = path.name == "install.sh"
        for at in sorted(
            {*range(0, len(content), max(1, len(content) // places)), len(content) - 1}
        ):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            refused = not by_hand(collected) if own else install(collected, "--check", TOLD)[0] != 0
            assert refused, (path.name, at)
            count += 1
        path.write_bytes(content)
        path.chmod(mode)
    assert count > 7 * places
    assert install(collected, "--check", TOLD)[0] == 0
    assert by_hand(collected)


def _drop_signature(folder: Path) -> None:
    (folder / "SHA256SUMS.sig").unlink()


def _drop_model(folder: Path) -> None:
    (folder / "model" / "config.json").unlink()


def _add_code(folder: Path) -> None:
    (folder / "model" / "modeling.py").write_text("evil")


def _add_wheel(folder: Path) -> None:
    wheel(folder / "wheels", "torch")


def _add_hidden(folder: Path) -> None:
    (folder / ".pip").mkdir()
    (folder / ".pip" / "pip.conf").write_text("evil")


def _add_link(folder: Path) -> None:
    (folder / "model" / "link").symlink_to("/etc")


def _swap(folder: Path) -> None:
    one, other = folder / "model" / "config.json", folder / "requirements.txt"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _sign_anew(folder: Path) -> None:
    (folder / "model" / "config.json").write_text('{"evil": 1}')
    seal(folder, authority("evil"), NOW)


def _sign_with_the_old_certificate(folder: Path) -> None:
    signer = (folder / "signer.crt").read_bytes()
    _sign_anew(folder)
    (folder / "signer.crt").write_bytes(signer)


def _list_twice(folder: Path) -> None:
    seal(folder, authority(), NOW)
    path = folder / "SHA256SUMS"
    text = path.read_text() + path.read_text().splitlines()[1] + "\n"
    path.write_text(text)
    (folder / "SHA256SUMS.sig").write_bytes(authority().sign(text.encode()))


def _of_another_kind(folder: Path) -> None:
    """Signed by the right key, as something else: a paper."""
    text = "cloister invite 1\n{}"
    (folder / "SHA256SUMS").write_text(text)
    (folder / "SHA256SUMS.sig").write_bytes(authority().sign(text.encode()))


@pytest.mark.parametrize(
    "change",
    [
        _drop_signature,
        _drop_model,
        _add_code,
        _add_wheel,
        _add_hidden,
        _add_link,
        _swap,
        _sign_anew,
        _sign_with_the_old_certificate,
        _list_twice,
        _of_another_kind,
    ],
    ids=lambda change: change.__name__.strip("_"),
)
def test_what_is_not_as_signed_is_not_installed(collected: Path, change, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    seal(collected, authority(), NOW)
    change(collected)
    code, said = install(collected, TOLD, "venv")
    assert code == 1
    assert said.count("install.sh: ") == 1
    assert "nothing was installed" in said
    assert not (tmp_path / "venv").exists()


def test_nothing_is_installed_unchecked(collected: Path, tmp_path: Path) -> None:
    """A tool or a fingerprint that is missing ends it; no step is left out."""
    seal(collected, authority(), NOW)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "dirname", "mktemp", "rm", "tr", "cut", "openssl"):
        (tools / name).symlink_to(shutil.which(name) or "")
    (tools / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tools / "python3").chmod(0o755)
    assert install(collected, "--check", TOLD, path=str(tools))[0] == 0
    for name in ("openssl", "python3"):
        kept = (tools / name).rename(tmp_path / name)
        code, said = install(collected, TOLD, "venv", path=str(tools))
        assert code == 1
        assert f"{name} is missing" in said
        kept.rename(tools / name)
    for words in ((), ("",), ("--check",), ("0" * 64, "venv"), ("-", "venv"), (TOLD[:-1], "venv")):
        code, said = install(collected, *words)
        assert code == 1
        assert "nothing was installed" in said
    assert install(collected, "--check", TOLD.upper().replace("-", " "))[0] == 0
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("name", ["new\nline", "back\\slash", "esc\x1b[2J"])
def test_names_that_cannot_be_listed_are_refused(collected: Path, name: str) -> None:
    (collected / "model" / name).write_bytes(b"")
    with pytest.raises(BadFileError, match="rename or replace it"):
        seal(collected, authority(), NOW)


def test_what_cannot_be_installed_offline_is_refused(collected: Path) -> None:
    (collected / "wheels" / "source-1.0.tar.gz").write_bytes(b"")
    with pytest.raises(BadFileError, match="not a wheel"):
        seal(collected, authority(), NOW)


def test_bad_input_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="already"):
        collect(tmp_path, ROOT, None, authority(), NOW, "cpu")
    with pytest.raises(UsageError, match="sources"):
        collect(tmp_path / "out", tmp_path, None, authority(), NOW, "cpu")
    with pytest.raises(BadFileError, match="base model"):
        collect(tmp_path / "out", ROOT, tmp_path / "none", authority(), NOW, "cpu")
    monkeypatch.chdir(tmp_path)
    bundle = ["bundle", "out", "--source", str(tmp_path)]
    assert run(bundle) == 2
    assert "--new-signer" in capsys.readouterr().err.replace("\n", " ")
    assert run([*bundle, "--lock", "best"]) == 2
    assert run([*bundle, "--signer", "mine", "--new-signer"]) == 2  # no sources, but a key
    assert (tmp_path / "mine" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert run([*bundle, "--signer", "mine", "--new-signer"]) == 3  # which stays
    capsys.readouterr()
