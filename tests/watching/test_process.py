"""The command as a process: a stream, a real webhook, HTTP, and an end at any moment."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cloister.cli.main import run
from tests.support.watched import START, news, write_lines, write_watch
from tests.support.webhooks import Webhook, webhook
from tests.support.worker_forks import Program, started

SECONDS = 120.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_lines(tmp_path / "reference.jsonl", news(np.random.default_rng(0), 40))
    return tmp_path


def until(done: Any) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def watching(model: Path, place: Path, **pipes: Any) -> Iterator[Program]:
    """The command, which is killed at the end if it runs still."""
    command = [sys.executable, "-m", "cloister", "model", "watch", str(model)]
    command += ["--watch", str(place / "watch.toml")]
    process = started(command, stderr=subprocess.PIPE, text=True, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.wait(SECONDS)
        assert process.stderr is not None
        process.stderr.close()


def surging() -> list[dict[str, Any]]:
    return news(np.random.default_rng(1), 90, surges=[(76, 82)])


def test_a_posted_stream_alerts_a_webhook_shows_metrics_and_goes_on_after_sigterm(
    watched_run: Path, place: Path
) -> None:
    with webhook(b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n") as receiver:
        source = 'kind = "http"\ntime = "at"'
        more = f'webhooks = ["{receiver.url}"]\n[http]\nlisten = "127.0.0.1:0"'
        write_watch(place, more, source=source)
        with watching(watched_run, place) as process:
            assert process.stderr is not None
            address = next(line for line in process.stderr if line.startswith("http"))
            with httpx.Client(
                base_url=address.split("/ (")[0], timeout=SECONDS, trust_env=False
            ) as client:
                lines = "\n".join(json.dumps(row) for row in surging())
                kind = {"content-type": "application/x-ndjson"}
                # A page of another site can post neither a form nor under its own name.
                assert client.post("/v1/predictions", content=lines).status_code == 415
                evil = {**kind, "host": "evil.example"}
                refused = client.post("/v1/predictions", content=lines, headers=evil)
                assert refused.status_code == 421
                answer = client.post("/v1/predictions", content=lines + "\n{bad", headers=kind)
                assert answer.json() == {"rows": 900, "refused": {"not JSON": 1}}
                until(lambda: receiver.alerts)  # which says "later"
                until(
                    lambda: (
                        b'cloister_watch_rows{watch="news"} 900.0' in client.get("/metrics").content
                    )
                )
                assert client.get("/report.json").json()["rows"] == 900
                assert "Watch: news" in client.get("/").text
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        receiver.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        tries = len(receiver.keys)
        told = [json.loads(one)["id"] for one in (place / "alerts.jsonl").read_text().splitlines()]
        assert len(told) >= 3
        with watching(watched_run, place) as process:
            until(lambda: len(receiver.keys[tries:]) == len(told))
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        # The file had each once before; after the restart the webhook got each once.
        assert receiver.keys[tries:] == told
    after = (place / "alerts.jsonl").read_text().splitlines()
    assert [json.loads(one)["id"] for one in after] == told


def test_lines_from_standard_input_are_watched_to_their_end(
    watched_run: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_watch(place, source='kind = "stdin"\ntime = "at"')
    text = "".join(json.dumps(row) + "\n" for row in surging())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    arguments = ["model", "watch", str(watched_run), "--watch", str(place / "watch.toml"), "--json"]
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == 900
    assert "company=Acme surges: " in err


@pytest.mark.nightly
def test_kill_at_any_moment_loses_no_alert_and_makes_none_twice(
    watched_run: Path, place: Path
) -> None:
    """The process is killed between state, delivery and state, twelve times; each alert of an
    unbroken watch is in the file once, and the webhook got each at least once under its id."""
    rows = news(np.random.default_rng(2), 200, surges=[(60, 64), (90, 94), (130, 134), (170, 174)])
    kills = np.random.default_rng(3)

    def watch(folder: Path, receiver: Webhook, times: int) -> list[dict[str, Any]]:
        folder.mkdir()
        write_lines(folder / "reference.jsonl", news(np.random.default_rng(0), 40))
        write_watch(folder, f'webhooks = ["{receiver.url}"]')
        stream, parts = folder / "stream.jsonl", max(1, times)
        stream.touch()
        for part in range(parts):
            new = rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]
            with watching(watched_run, folder) as process:
                with stream.open("a") as file:
                    for row in new:
                        file.write(json.dumps(row) + "\n")
                if times:
                    before = len(receiver.keys)
                    end = time.monotonic() + 12
                    # Right after an alert was sent, before its result is in the state, or whenever.
                    while time.monotonic() < end and len(receiver.keys) == before:
                        time.sleep(0.001)
                    time.sleep(float(kills.choice([0.0, 0.002, 0.02, 0.3])))
                    process.kill()
                    process.wait(SECONDS)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "cloister",
                "model",
                "watch",
                str(watched_run),
                "--watch",
                str(folder / "watch.toml"),
                "--once",
            ],
            check=True,
            timeout=SECONDS,
            capture_output=True,
        )
        return [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]

    with webhook() as one, webhook() as other:
        whole = watch(place / "whole", one, 0)
        broken = watch(place / "broken", other, 12)
        assert len(whole) >= 8
        assert broken == whole
        assert set(other.keys) == {alert["id"] for alert in whole}
        assert sorted(one.keys) == sorted(alert["id"] for alert in whole)
    assert rows[0]["at"] == START
