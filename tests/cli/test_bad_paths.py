"""A path that cannot exist, or of the wrong kind, ends in one line and exit code 3."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from cloister.cli.local_paths import LocalPath
from cloister.cli.main import command_line, of_system, run
from cloister.client.site_file import EXAMPLE
from cloister.errors import BadFileError, NetworkError
from cloister.files import bad_file
from tests.support.studies import small_assignments

Made = Callable[[Path], str]


def too_long(place: Path) -> str:
    return str(place / ("x" * 300 + ".jsonl"))


def a_folder(place: Path) -> str:
    (place / "folder.jsonl").mkdir()
    return str(place / "folder.jsonl")


def below_a_file(place: Path) -> str:
    (place / "file").write_text("x")
    return str(place / "file" / "records.jsonl")


def forbidden(place: Path) -> str:
    (place / "closed").mkdir(mode=0)
    return str(place / "closed" / "records.jsonl")


def with_nul(place: Path) -> str:
    return str(place / "a\0b.jsonl")


def simulated(*changes: str) -> Callable[[Path, str], list[str]]:
    def arguments(place: Path, path: str) -> list[str]:
        sets = [*small_assignments(place / "study"), *(c.replace("PATH", path) for c in changes)]
        return ["simulate", *(a for s in sets for a in ("--set", s)), "--out", str(place / "run")]

    return arguments


def site_init(place: Path, path: str) -> list[str]:
    text = EXAMPLE.replace('"records.ledger"', '"' + path.replace("\0", "\\u0000") + '"')
    (place / "site.toml").write_text(text)
    return ["site", "init", str(place / "site.toml")]


VERBS: dict[str, Callable[[Path, str], list[str]]] = {
    "train": simulated("data.train=PATH"),
    "base": simulated("model.base=PATH", "model.sha256=" + "0" * 64),
    "out": lambda place, path: [*simulated()(place, "")[:-1], path],
    "recipe": lambda place, path: ["simulate", path],
    "resume": lambda place, path: ["simulate", "--resume", "--out", path],
    "evaluate": lambda place, path: ["evaluate", path, "--data", str(place / "none.jsonl")],
    "predict": lambda place, path: ["predict", path, "--text", "x"],
    "ledger": lambda place, path: ["ledger", "show", path],
    "verify": lambda place, path: ["ledger", "verify", path],
    "certificate": lambda place, path: ["audit", "certificate", path],
    "site": lambda place, path: ["site", "doctor", path],
    "site's ledger": site_init,
    "backup": lambda place, path: ["site", "backup", path],
    "restore": lambda place, path: ["site", "restore", path, str(place / "new")],
}


@pytest.mark.parametrize("make", [too_long, a_folder, below_a_file, forbidden, with_nul])
@pytest.mark.parametrize("verb", VERBS)
def test_a_path_that_cannot_be_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, make: Made
) -> None:
    """Nothing but an error of ours comes out of `run`; 2 is for a command, 6 for a ledger."""
    if make is forbidden and os.geteuid() == 0 and verb == "out":
        pytest.skip("root may write anywhere")
    code = run(VERBS[verb](tmp_path, make(tmp_path)))
    told = capsys.readouterr().err
    if (verb, make) == ("out", a_folder):
        assert code == 0  # an empty folder is a run's
        return
    assert code in (2, 3, 6, 9), told
    assert "Traceback" not in told
    assert "cloister: " in told
    assert max(map(len, told.splitlines())) < 1000 + 2 * len(str(tmp_path))


def test_the_path_and_the_reason_are_told() -> None:
    gone = OSError(36, "File name too long", "/tmp/" + "x" * 3000)
    assert str(bad_file(gone)).startswith("'/tmp/xxx")
    assert "(File name too long)" in str(bad_file(gone))
    assert len(str(bad_file(gone))) < 200
    assert "records.csv: cannot be written" in str(
        bad_file(PermissionError(13, "Permission denied", "records.csv"), "written")
    )
    assert isinstance(of_system(OSError(28, "No space left on device")), BadFileError)
    assert isinstance(of_system(ConnectionRefusedError(111, "refused")), NetworkError)


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", "gs://bucket/study.toml"],
        ["simulate", "--from", "s3://bucket/run"],
        ["tune", "study.toml", "--out", "s3://bucket/run"],
        ["audit", "certificate", "s3://bucket/run"],
        ["model", "export", "run", "--format", "onnx", "--out", "memory://x"],
    ],
)
def test_a_url_is_no_folder_of_this_machine(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    told = capsys.readouterr().err
    assert "is a URL; a file or folder of this machine is needed" in told
    assert "cloister fetch URL FOLDER" in told
    assert list(tmp_path.iterdir()) == []


def test_every_path_of_every_command_is_of_this_machine() -> None:
    def paths(command: click.Command) -> Iterator[click.ParamType]:
        yield from (one.type for one in command.params if isinstance(one.type, click.Path))
        for inner in command.commands.values() if isinstance(command, click.Group) else ():
            yield from paths(inner)

    found = list(paths(command_line()))
    assert len(found) > 100
    assert all(isinstance(one, LocalPath) for one in found)
