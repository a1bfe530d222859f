"""Hostile files and options end in one message and exit code, and leave nothing behind."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.cli.main import run
from cloister.data.augment.files import AugmentOptions, augment_file
from cloister.data.check.report import CheckOptions, check_file
from cloister.data.detected import Detected, detect_form
from cloister.data.split.files import SplitPlan, split_file
from cloister.data.values import Row
from cloister.errors import DataError

ROWS = [
    {"text": f"note number {n}", "label": "ab"[n % 2], "patient": f"p{n % 7}"} for n in range(30)
]


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return put(tmp_path / "notes.jsonl", ROWS)


def put(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def data(*arguments: str) -> int:
    more = ["--no-near"] if arguments[0] == "check" else []
    return run(["data", *arguments, *more])


def refused(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """One line that says what is wrong, and no new file."""
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in parts:
        assert part in said


def here() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


COMMANDS = ["clean", "scrub", "split"]


@pytest.mark.parametrize("cell", ["a\rb", "a\r\nb", "a\nb", ' "', "\ufeffa", ""])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_csv_that_is_written_is_read_back_cell_for_cell(
    notes: Path, command: str, cell: str
) -> None:
    """A carriage return outside quotes is refused by every reader, ours too."""
    rows = [{**row, "text": f"{row['text']} {cell} x", "more": cell} for row in ROWS]
    source = put(notes, rows)
    options = {
        "clean": ["--out", "o.csv", "--keep", "more", "--skip", "control", "--skip", "space"],
        "scrub": ["--out", "o.csv"],
        "split": ["--out", "o", "--format", "csv"],
    }[command]
    assert data(command, source.name, *options) == 0
    from cloister.data.csv_rows import csv_rows

    parts = [Path("o.csv")] if command != "split" else [Path("o/train.csv"), Path("o/test.csv")]
    texts = [str(row["text"]) for part in parts for _, row in csv_rows(part)]
    if command == "clean":  # what other rules make of a text is theirs
        assert len(texts) == len(rows)
    else:
        assert sorted(texts) == sorted(row["text"] for row in rows)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_nul_that_a_csv_cannot_hold_is_refused(
    notes: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(notes, [{**row, "text": "a\0b"} for row in ROWS])
    options = {
        "clean": ["--out", "o.csv", "--skip", "control"],
        "scrub": ["--out", "o.csv"],
        "split": ["--out", "o", "--format", "csv"],
    }[command]
    assert data(command, notes.name, *options) == (2 if command == "clean" else 3)
    refused(capsys, "NUL character, which CSV cannot hold")
    assert here() == [notes.name]


def test_half_a_surrogate_pair_is_named_in_parquet_too(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(notes, [{**row, "text": "a\ud800"} for row in ROWS])
    for out in ("o.parquet", "o.csv", "o.jsonl"):
        assert data("scrub", notes.name, "--out", out) == 3
        refused(capsys, "half of a surrogate pair")
    assert here() == [notes.name]


def test_bytes_that_are_no_characters_in_names_and_settings(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python keeps them as halves of surrogate pairs, which no file of UTF-8 holds."""
    odd = os.fsdecode(b"\xff.jsonl")
    notes.rename(odd)
    assert data("scrub", odd, "--out", os.fsdecode(b"a\xff.csv")) == 0
    assert data("split", odd, "--out", "o", "--salt", os.fsdecode(b"\xff")) == 0
    assert json.loads(Path("o/test.jsonl.log.json").read_text())["steps"][0]["settings"]["salt"]
    assert data("clean", odd, "--out", os.fsdecode(b"b\xff.csv")) == 0
    capsys.readouterr()
    before = here()
    put(Path(odd), [{**row, os.fsdecode(b"\xff"): "x"} for row in ROWS])
    assert data("clean", odd, "--out", "c.csv", "--keep", os.fsdecode(b"\xff")) == 2
    refused(capsys, "half of a surrogate pair")
    assert here() == before


@pytest.mark.parametrize(
    "out", ["", ".", "/", "..", "notes.jsonl", "link", "no/o.jsonl", "notes.jsonl/o.csv"]
)
def test_a_place_where_nothing_new_can_be_is_refused_before_anything_is_read(
    notes: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notes.write_text("no JSON at all, which nobody finds out")
    Path("link").symlink_to("nowhere")
    for command in ("check", *COMMANDS):
        assert data(command, notes.name, "--page" if command == "check" else "--out", out) == 2
        refused(
            capsys,
            "does not exist" if out.startswith(("no/", "notes.jsonl/")) else "exists already",
        )
    assert here() == ["link", notes.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_bad_file(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes.chmod(0)
    for command in COMMANDS:
        assert data(command, notes.name, "--out", "o.jsonl") == 3
        refused(capsys, "ermission denied")


def test_a_column_of_persons_that_no_row_has_splits_nothing(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each record would be a unit, and a person's records would be on two sides unnoticed."""
    assert data("split", notes.name, "--out", "o", "--unit", "pateint") == 2
    refused(capsys, "--unit", "no column 'pateint' (found: text, label, patient)")
    assert here() == [notes.name]
    put(notes, [{"text": "first, of nobody"}, *ROWS])
    assert data("split", notes.name, "--out", "o", "--unit", "patient", "--test", "0.5") == 0


def test_control_characters_reach_neither_terminal_nor_page_and_json_stays_json(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = ("a\x9b31m\x7f", "b\u2028\u202e", "<script>\x1b[2J")
    rows = [
        {**row, "label": hostile[n % 3], "patient": hostile[n % 2]} for n, row in enumerate(ROWS)
    ]
    put(notes, rows)
    roles = ["--label", "label", "--person", "patient"]
    assert data("check", notes.name, *roles, "--page", "p.html") == 0
    for text in (capsys.readouterr().out, Path("p.html").read_text()):
        assert not set("\x1b\x7f\x9b\u2028\u202e") & set(text)
    assert "<script" not in Path("p.html").read_text()
    assert data("check", notes.name, *roles, "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["labels"]["counts"]) == set(hostile)
    assert data("clean", notes.name, *roles, "--out", "o.jsonl", "--json") == 0
    assert json.loads(capsys.readouterr().out)["output"]["rows"] == len(rows)


def test_a_log_without_its_file_is_not_left(
    notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crash or an interruption after the log was written, and before the file appears."""
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if Path(target).name == "o.jsonl":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    for command in ("clean", "scrub"):
        assert data(command, notes.name, "--out", "o.jsonl") == 1
        refused(capsys, "interrupted")
    assert here() == [notes.name]


def test_a_full_disk_leaves_nothing(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that may grow no further is refused as a disk without room is."""
    import resource
    import signal

    put(notes, [{**row, "text": f"{n} {os.urandom(60).hex()}"} for n, row in enumerate(ROWS * 20)])
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        codes = [
            data(command, notes.name, "--out", out)
            for command, out in [
                ("clean", "o.jsonl"),
                ("clean", "o.csv"),
                ("scrub", "o.jsonl"),
                ("scrub", "o.parquet"),
                ("split", "o"),
            ]
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert codes == [3] * len(codes)
    assert here() == [notes.name]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(codes)
    assert all("File too large" in line and line.startswith("cloister: o") for line in said[:4])


def test_white_space_before_an_array_is_skipped_at_once(notes: Path) -> None:
    from cloister.data.json_rows import json_rows

    path = notes.with_name("a.json")
    path.write_text(" \n" * 3_000_000 + '[{"a": 1}' + " " * 2_000_000 + "]\n\n")
    assert [number for number, _ in json_rows(path)] == [1]


def test_a_guess_keeps_no_thousand_rows_of_the_largest_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lists in lists take many times the memory of what they are written as."""
    from cloister.data import guess
    from cloister.data.values import Row

    cases: list[tuple[Row, int]] = [
        ({"t": "x"}, 64),
        ({"t": "x" * 1024}, 4),
        ({"t": [[] for _ in range(16)]}, 4),
    ]
    monkeypatch.setattr(guess, "MOST_LOOKED_AT", 4096)
    for row, most in cases:
        assert len(guess.first_rows((number, row) for number in range(1, 100))) <= most
    assert len(guess.first_rows((number, {}) for number in range(1, 10))) == 9


def test_json_of_many_levels_is_refused_by_every_command(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python parses about a thousand levels, and what writes them calls itself for each."""
    for depth, code in [(99, 0), (100, 3), (900, 3)]:
        deep = "[" * depth + "]" * depth
        notes.write_text("".join(f'{{"text": "n{n}", "o": {deep}}}\n' for n in range(20)))
        for command in COMMANDS:
            assert data(command, notes.name, "--out", f"{command}{depth}.jsonl") == code
            if code:
                refused(capsys, "row 1", "deep")
        capsys.readouterr()


def test_nul_bytes_that_compress_well_are_refused_at_their_first(
    notes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    from cloister.data import encodings

    monkeypatch.setattr(encodings, "_decoded", lambda *_: pytest.fail("all of it is read"))
    Path("z.csv.gz").write_bytes(gzip.compress(b"text,label\n" + b"\0" * 10_000))
    assert data("check", "z.csv.gz") == 3
    refused(capsys, "z.csv.gz, line 2: has a NUL byte")


def test_a_damaged_parquet_file_is_named(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrow raises errors of the system's kind that know no file."""
    Path("p.parquet").write_bytes(b"PAR1" + bytes(1000) + b"PAR1")
    assert data("check", "p.parquet") == 3
    refused(capsys, "p.parquet: cannot be read")


def test_encodings_that_no_file_has_and_one_that_this_file_lacks(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("punycode", "idna", "unicode_escape", "base64"):
        assert data("check", notes.name, "--encoding", name) == 2
        refused(capsys, "unknown encoding")
    assert data("check", notes.name, "--encoding", "utf-16") == 3
    refused(capsys, "not valid UTF-16", "line 1")


@pytest.mark.parametrize("command", ["check", "split", "augment"])
def test_a_file_that_grows_while_it_is_read_makes_nothing(notes: Path, command: str) -> None:
    """Two halves of it would be of two files; `clean` and `scrub` have tests of their own."""
    put(notes, [{**ROWS[0], "text": f"note number {n}"} for n in range(1200)])

    def grows(_: int) -> None:
        with notes.open("a") as file:
            file.write(json.dumps(ROWS[0]) + "\n")

    commands: dict[str, Callable[[], object]] = {
        "check": lambda: check_file(notes, CheckOptions(near=False, on_rows=grows)),
        "split": lambda: split_file(notes, Path("out"), SplitPlan(), progress=grows),
        "augment": lambda: augment_file(
            notes, Path("out.jsonl"), AugmentOptions(copies=1), progress=grows
        ),
    }
    with pytest.raises(DataError, match=r"notes\.jsonl: changed while it was read"):
        commands[command]()
    assert here() == ["notes.jsonl"]


def test_real_numbers_and_dates_of_parquet_are_kept(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores of essays are floats there; a date is written in ISO 8601."""
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    scores = [0.1, 1e300, -2.5, 3.0] * 10
    columns = {"text": [f"an essay of number {n} on water" for n in range(40)], "score": scores}
    pq.write_table(pa.table(columns), "e.parquet")
    assert data("scrub", "e.parquet", "--out", "s.csv") == 0
    assert data("augment", "e.parquet", "--out", "a.jsonl", "--copies", "1", "--how", "swap") == 0
    assert data("split", "e.parquet", "--out", "parts") == 0
    lines = Path("s.csv").read_text().splitlines()[1:]
    assert [float(line.rsplit(",", 1)[1]) for line in lines] == scores
    written = [json.loads(line)["score"] for line in Path("a.jsonl").read_text().splitlines()]
    assert written[::2] == scores
    kept = [pq.read_table(f"parts/{side}.parquet")["score"] for side in ("train", "test")]
    assert sorted(n for column in kept for n in column.to_pylist()) == sorted(scores)
    when = [datetime.date(2026, 1, 1)] * 40
    pq.write_table(pa.table({**columns, "when": when}), "e.parquet")
    for arguments in (
        ["scrub", "e.parquet", "--out", "o.jsonl"],
        ["scrub", "e.parquet", "--out", "o.csv"],
        ["scrub", "e.parquet", "--out", "o.parquet"],
        ["clean", "e.parquet", "--out", "c.jsonl", "--score", "score", "--keep", "when"],
        ["clean", "e.parquet", "--out", "c.csv", "--score", "score", "--keep", "when"],
    ):
        assert data(*arguments) == 0
        assert "2026-01-01" in Path(arguments[3]).read_bytes().decode("utf-8", "replace")
    # A label or an identifier must have one spelling.
    made = here()
    capsys.readouterr()
    assert data("clean", "e.parquet", "--out", "x.jsonl", "--label", "when") == 3
    assert "when" in capsys.readouterr().err
    assert here() == made


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"sep=;\ntext;label\na;b\n", ["line 1: 'sep=;'", "Excel", "remove the line"]),
        (b"SEP=,\ntext,label\na,b\n", ["line 1: 'SEP='", "remove the line"]),
        (b"PK\x03\x04" + bytes(100), ["a ZIP archive", "export its table as CSV"]),
        (b"%PDF-1.7\n" + bytes(100), ["a PDF document"]),
    ],
)
def test_what_office_programs_save_is_named(
    notes: Path, content: bytes, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("o.csv").write_bytes(content)
    assert data("check", "o.csv") == 3
    refused(capsys, *parts)


@pytest.mark.parametrize("by", ["unit", "time"])
def test_a_file_that_is_replaced_between_two_readings_is_not_split(
    notes: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new rows are of units that had no side."""
    rows = [{**row, "time": f"2026-01-{n + 1:02}"} for n, row in enumerate(ROWS)]
    put(notes, rows)
    form, readings = detect_form(notes), 0

    def rows_of(self: Detected) -> Iterator[tuple[int, Row]]:
        nonlocal readings
        readings += 1
        if readings == 2:
            other = put(notes.with_name("other"), [{**row, "text": "new"} for row in rows])
            other.replace(notes)
        return given(self)

    given = Detected.rows
    monkeypatch.setattr(Detected, "rows", rows_of)
    plan = SplitPlan(by="time", test_from="2026-01-20") if by == "time" else SplitPlan()
    with pytest.raises(DataError, match="changed while"):
        split_file(form, Path("out"), plan)
    assert here() == ["notes.jsonl"]
