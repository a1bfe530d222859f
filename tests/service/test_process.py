"""The service process, over TLS, changes its model and ends without losing a request."""

import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from cloister.cli.main import run
from cloister.deployment.enrolment.authority import create_authority, issue_endpoint
from cloister.tasks.config import TaskConfig
from tests.support.released import exported
from tests.support.worker_forks import Program, started

SECONDS = 120


@contextmanager
def serving(*options: str | Path) -> Iterator[tuple[Program, str]]:
    """The process and its address, once it answers; what it says goes on in its stderr."""
    command = [sys.executable, "-m", "cloister", "serve", *map(str, options), "--port", "0"]
    process = started(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("http"):
                yield process, line.split("/ (")[0]
                break
        else:
            raise AssertionError("the service ended before it listened")
    finally:
        process.kill()
        process.wait(SECONDS)
        process.stderr.close()


def said(process: Program, text: str) -> str:
    """Reads what the service says until a line that says this, and returns that."""
    assert process.stderr is not None
    return next(line for line in process.stderr if text in line)


def tls(folder: Path) -> tuple[list[str | Path], ssl.SSLContext]:
    """Options with a certificate for this machine, and what trusts it."""
    authority = create_authority(folder, "test", datetime.now(UTC))
    key, certificate = issue_endpoint(authority, ["127.0.0.1"], datetime.now(UTC))
    (folder / "key.pem").write_bytes(key)
    (folder / "chain.pem").write_bytes(certificate)
    options: list[str | Path] = ["--certificate", folder / "chain.pem", "--key", folder / "key.pem"]
    return options, ssl.create_default_context(cadata=authority.pem.decode())


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
def test_no_request_is_lost_when_the_model_is_exchanged_or_the_service_ends(
    tmp_path: Path, bert: Path
) -> None:
    task = TaskConfig(labels=("x", "y"), max_length=12)
    for name, seed in (("one", 1), ("two", 2)):
        exported(tmp_path / name, bert, task, seed)
    link = tmp_path / "current"
    link.symlink_to("one")
    found: list[tuple[int, str]] = []
    came = threading.Condition()
    stop, ends = threading.Event(), threading.Event()
    options, trusted = tls(tmp_path)

    def ask(address: str) -> None:
        with httpx.Client(
            base_url=address, timeout=SECONDS, trust_env=False, verify=trusted
        ) as client:
            while not stop.is_set():
                try:
                    answer = client.post("/v1/predict", json={"inputs": ["chest pain"] * 3})
                except httpx.TransportError:  # at the end: what the service took is counted below
                    assert ends.is_set()
                    return
                with came:
                    found.append((answer.status_code, answer.json()["version"]))
                    came.notify_all()

    def version(address: str) -> str:
        answer = httpx.get(f"{address}/healthz", timeout=SECONDS, trust_env=False, verify=trusted)
        return str(answer.json()["version"])

    def until_callers_get(version: str) -> None:
        with came:
            assert came.wait_for(lambda: any(one == version for _, one in found), SECONDS)

    with serving(link, *options) as (process, address):
        assert address.startswith("https://")
        callers = [threading.Thread(target=ask, args=(address,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        first = version(address)
        until_callers_get(first)
        link.unlink()
        link.symlink_to("two")
        process.send_signal(signal.SIGHUP)
        said(process, "serves version")
        second = version(address)
        until_callers_get(second)
        link.unlink()
        process.send_signal(signal.SIGHUP)
        said(process, "the new version was not loaded")
        assert version(address) == second
        ends.set()
        process.send_signal(signal.SIGTERM)
        answered = int(said(process, "requests were answered").split()[0])
        assert process.wait(SECONDS) == 0
        stop.set()
        for caller in callers:
            caller.join(SECONDS)
    assert answered == len(found) + 3  # and how it is, three times
    assert first != second
    assert {status for status, _ in found} == {200}
    assert {version for _, version in found} == {first, second}


def test_what_cannot_be_served_is_said_before_the_base_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    cases = [
        (["--host", "0.0.0.0"], 2, "serve-token"),
        (["--certificate", str(tmp_path / "cert.pem")], 2, "give both or none"),
        (["--certificate", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "no")], 3, "PEM"),
        (["--tokens", str(tmp_path / "no")], 3, "no"),
        ([], 3, "adapter"),
    ]
    for options, code, told in cases:
        assert run(["serve", str(tmp_path / "run"), "--port", "0", *options]) == code
        error = capsys.readouterr().err
        assert told in error
        assert "Traceback" not in error
