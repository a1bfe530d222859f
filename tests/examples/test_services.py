"""An example ends with one message and no traceback, whatever interrupts it."""

import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cloister.errors import UsageError
from tests.examples.conftest import Opened


@pytest.fixture(scope="module")
def services(opened: Opened) -> ModuleType:
    opened("tutor")
    import services

    module: ModuleType = services
    return module


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (UsageError("give another base"), 2, "give another base"),
    ],
)
def test_a_program_ends_with_one_message(
    services: ModuleType,
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main(words: object) -> None:
        raise error

    monkeypatch.setattr(services.signal, "signal", lambda number, handler: None)
    with pytest.raises(SystemExit) as ended:
        services.program(main)
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_program_whose_reader_has_ended_ends_without_a_traceback() -> None:
    """As in `run.py | head -1`."""
    here = Path(__file__).parents[2] / "examples"
    lines = "import services; services.program(lambda _: [services.say('x') for _ in range(9**5)])"
    code = f"import sys; sys.path.insert(0, {str(here)!r}); {lines}"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "x\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_folder_that_is_there_and_a_port_that_is_taken_are_said(
    services: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "inside"):
        with pytest.raises(SystemExit) as ended:
            services.new_folder(place)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(place) in line
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        services.check_port(taken.getsockname()[1])
    assert ended.value.code == 2
    assert "give another" in capsys.readouterr().err


def test_a_command_that_fails_ends_the_program_with_its_code(
    services: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        services.cloister("simulate", str(tmp_path / "none.toml"))
    assert ended.value.code == 3
    assert "none.toml" in capsys.readouterr().err


def test_a_service_that_cannot_start_ends_the_program_with_its_code(
    services: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services.sys, "executable", "false")
    with pytest.raises(SystemExit) as ended, services.serving(str(tmp_path)):
        raise AssertionError("never served")
    assert ended.value.code == 1
