"""`cloister data label` serves its page from a real process and refuses bad input."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cloister.cli.main import run
from tests.support.labelled import TEXTS, labelled, records, rows_of
from tests.support.ports import free_port

ENTITIES = ("--answer", "entities", "--labels", "A")
ROOT = Path(__file__).parents[2]


def test_the_command_serves_a_page_and_ends_well(tmp_path: Path) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    port = free_port()
    command = ["data", "label", str(source), "--out", str(out), "--labels", "yes,no"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cloister", *command, "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = process.stderr.readline().strip()
        assert address.startswith(f"http://127.0.0.1:{port}/#token=")
        headers = {"authorization": f"Bearer {address.partition('token=')[2]}"}
        page = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=page, timeout=60, trust_env=False) as client:
            assert client.get("/begin").status_code == 401
            begun = client.get("/begin", headers=headers).json()
            assert (begun["text"], begun["annotator"]) == (TEXTS[0], "ann")
            saved = client.post("/answer", headers=headers, json={"at": 0, "answer": "yes"})
            assert saved.json()["answered"] == 1
        # Loopback alone: not even another address of this machine is answered.
        with socket.socket() as other, pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", port))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert f"1 of {len(TEXTS)} records have an answer in {out}" in told
    assert TEXTS[0] not in told
    assert [row["label"] for row in rows_of(out)] == ["yes"]
    log = json.loads((tmp_path / "ann.jsonl.log.json").read_text())
    assert log["steps"][-1]["counts"] == {"answered": 1, "rows": len(TEXTS)}
    assert log["couples_units"] is True  # which records are in it follows from how far one came


@pytest.mark.parametrize(
    ("content", "options", "code", "words"),
    [
        ("", (), 3, "empty"),
        ('{"text": "a"}\n', ("--labels", "one"), 2, "--labels: 1 given"),
        ('{"text": "a"}\n', ("--labels", "a,b", "--answer", "score"), 2, "a score has no labels"),
        ('{"text": "a"}\n', ("--text", "body", "--labels", "a,b"), 2, "no such column"),
        (
            '{"text": "a\\u0000"}\n{"text": 3}\n',
            ("--text", "text", "--labels", "a,b"),
            3,
            "row 2: text is",
        ),
        ('{"text": "a", "label": "x"}\n', ("--labels", "a,b"), 2, "--column"),
        ('{"text": "a"\n', ("--labels", "a,b"), 3, "no valid JSON"),
        ('{"text": "a"}\n', ("--labels", "a,b", "--with", "none.jsonl"), 3, "no such file"),
        (
            '{"messages": [{"role": "user", "content": "x"}]}\n',
            ENTITIES,
            2,
            "the file has conversations",
        ),
    ],
)
def test_what_cannot_be_labelled_ends_in_one_message(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    options: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    source = tmp_path / "notes.jsonl"
    source.write_text(content)
    port = str(free_port())
    out = tmp_path / "ann.jsonl"
    assert run(["data", "label", str(source), "--out", str(out), "--port", port, *options]) == code
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["notes.jsonl"]


def test_a_port_that_is_taken_is_said_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = records(tmp_path / "notes.jsonl"), tmp_path / "ann.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = ["data", "label", str(source), "--out", str(out), "--labels", "a,b"]
        assert run([*command, "--port", port]) == 7
    assert "choose another --port" in capsys.readouterr().err
    assert not out.exists()


def test_agreement_of_files_that_are_none_ends_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = records(tmp_path / "notes.jsonl")
    own = labelled(source, tmp_path / "a.jsonl", ["yes", "no"])
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b"\xff\xfe\x00")
    out = str(tmp_path / "merged.jsonl")
    for files, code in (
        ([own], 2),
        ([own, own], 2),
        ([own, broken], 3),
        ([own, tmp_path / "none.jsonl"], 3),
        ([own, tmp_path], 3),
    ):
        assert run(["data", "agreement", *map(str, files), "--out", out]) == code
        assert "Traceback" not in capsys.readouterr().err
    assert not Path(out).exists()


def test_where_the_disputed_cannot_be_written_nothing_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"cloister_row": n, "text": f"text {n}", "cloister_annotator": 7.5} for n in (0, 1)]
    files = []
    for name, answer in (("a", "yes"), ("b", "\ud800")):  # half of a surrogate pair
        files.append(tmp_path / f"{name}.jsonl")
        answered = [
            {**row, "label": label} for row, label in zip(rows, ("yes", answer), strict=True)
        ]
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in answered))
    words = ["data", "agreement", *map(str, files), "--out", str(tmp_path / "merged.jsonl")]
    assert run([*words, "--disputed", str(tmp_path / "disputed.jsonl")]) == 3
    assert "record 1: has half of a surrogate pair" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == files
    assert run(words) == 0
    assert "annotators: a, b\n" in capsys.readouterr().out  # 7.5 is nobody's name
