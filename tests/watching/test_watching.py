"""Whole watches: state over restarts, replays of a history, the page, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cloister as cl
from cloister.cli.main import run
from cloister.errors import BadFileError, DataError, UsageError
from cloister.tasks.config import TaskConfig
from cloister.watching import running
from cloister.watching.alert import Alert, make_alert
from cloister.watching.history_events import TrueEvent, read_events
from cloister.watching.metrics import metrics_text
from cloister.watching.page import watch_page
from cloister.watching.replayed_history import tally
from cloister.watching.running import Shell, first_state, taken
from cloister.watching.setup import open_watch
from cloister.watching.shown import Shown
from cloister.watching.source import LineBatch
from cloister.watching.state_file import State, opened_folder, read_state, write_state
from cloister.watching.watch_file import read_watch_file
from tests.support.released import exported
from tests.support.watched import HOUR, START, news, write_lines, write_watch
from tests.watching.test_monitor import same

# A surge of six hours on the fourth day.
SURGE = (76, 82)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a reference, a stream of five days, and a watch file."""
    rng = np.random.default_rng(0)
    write_lines(tmp_path / "reference.jsonl", news(rng, 40))
    write_lines(tmp_path / "stream.jsonl", news(rng, 120, surges=[SURGE]))
    write_watch(tmp_path)
    return tmp_path


def alerts_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]


def test_a_surge_is_alerted_to_the_file_and_is_on_page_and_report(
    watched_run: Path, place: Path
) -> None:
    report = cl.watch_model(watched_run, place / "watch.toml")
    found = alerts_in(place)
    # Sixty rows of the surge are more than half of a window, so that the labels drift too.
    assert [(one["key"], one["event"]) for one in found] == [
        ("company=Acme", "begins"),
        ("label", "begins"),
        ("company=Acme", "ends"),
        ("label", "ends"),
    ]
    assert report.document["rows"] == 1200
    assert report.document == json.loads((place / "news.watch" / "report.json").read_text())
    page = (place / "news.watch" / "index.html").read_text()
    assert found[0]["message"] in page
    assert "no noise is added" in page
    for file in (place / "news.watch").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    # No text of a row is kept anywhere.
    kept = "".join(path.read_text() for path in (place / "news.watch").iterdir())
    assert "made news" not in kept + (place / "alerts.jsonl").read_text()


def test_a_watch_that_is_called_often_is_the_one_that_is_called_once(
    watched_run: Path, place: Path
) -> None:
    whole = cl.watch_model(watched_run, place / "watch.toml").document
    lines = (place / "stream.jsonl").read_text().splitlines(keepends=True)
    alerts = alerts_in(place)
    for name in ("alerts.jsonl", "stream.jsonl"):
        (place / name).unlink()
    (place / "news.watch").rename(place / "before.watch")
    parts = whole
    for cut in range(0, 1200, 400):
        with (place / "stream.jsonl").open("a") as file:
            file.writelines(lines[cut : cut + 400])
        parts = cl.watch_model(watched_run, place / "watch.toml").document
    assert parts == whole
    assert alerts_in(place) == alerts


def test_the_state_comes_back_as_it_was(watched_run: Path, place: Path) -> None:
    watch = open_watch(watched_run, read_watch_file(place / "watch.toml"))
    lines = tuple(enumerate((place / "stream.jsonl").read_bytes().splitlines(), 1))
    batch = LineBatch((*lines, (1201, b"{"), (1202, None)))
    state = taken(watch, first_state(watch, None, print), batch, 2 * START, ("file x",)).state
    with opened_folder(place / "news.watch"):
        write_state(place / "news.watch", state)
        back = read_state(place / "news.watch")
        with (
            pytest.raises(UsageError, match="another process"),
            opened_folder(place / "news.watch"),
        ):
            pass
    assert back is not None
    assert same(back.monitor, state.monitor)
    assert replace(back, monitor=state.monitor) == state
    assert dict(state.refused.by_reason) == {"not JSON": 1, "too long": 1}
    assert len(state.outbox.waiting) == 4


def test_rows_are_answered_and_alerts_handed_out_once_they_are_on_disk(
    watched_run: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash loses what was only in memory: a client would not post it again."""
    watch = open_watch(watched_run, read_watch_file(place / "watch.toml"))
    lines = list(enumerate((place / "stream.jsonl").read_bytes().splitlines(), 1))
    answered, sent = list[int](), list[bool]()

    def on_disk() -> State:
        state = read_state(place / "news.watch")
        assert state is not None
        return state

    class Posted:
        def read(self, seconds: float) -> LineBatch:
            own, lines[:] = tuple(lines[:50]), lines[50:]
            kept = lambda rows, refused: answered.append(on_disk().monitor.rows)  # noqa: E731
            # Every second batch is one for which nobody waits.
            return LineBatch(own, ended=not own, kept=kept if len(lines) // 50 % 2 else None)

        def close(self) -> None:
            pass

    def send(alert: Alert) -> None:
        sent.append((alert.id, "x") in on_disk().outbox.waiting)

    monkeypatch.setattr(running, "senders", lambda file: {"x": send})
    shell = Shell(lambda text: None, clock=lambda: 2 * START)  # no time passes between two states
    with opened_folder(place / "news.watch"):
        running.run_watch(watch, first_state(watch, None, print), Posted(), Shown(), shell)
    assert answered == list(range(50, 1200, 100))
    assert sent == [True] * 4


def test_a_row_of_a_far_year_does_not_end_the_watch_for_surges(
    watched_run: Path, place: Path
) -> None:
    """Every later row would come after its step had closed."""
    watch = open_watch(watched_run, read_watch_file(place / "watch.toml"))
    line = json.loads((place / "stream.jsonl").read_bytes().splitlines()[0])
    ahead = [json.dumps({**line, "at": START + hours * 3600}).encode() for hours in (27, 25, 1e6)]
    found = taken(watch, first_state(watch, None, print), LineBatch((*enumerate(ahead, 1),)),
                  START, ())  # fmt: skip
    assert found.refused == {"a time to come": 2}
    assert found.rows == 1
    assert found.state.monitor.counts.step == int(
        (START + 25 * 3600) // watch.plan.surges.step_seconds
    )


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 2}', '{"version": 1}'])
def test_a_damaged_state_is_said_and_not_overwritten(
    watched_run: Path, place: Path, content: str
) -> None:
    (place / "news.watch").mkdir()
    (place / "news.watch" / "state.json").write_text(content)
    with pytest.raises(BadFileError, match="move it away"):
        cl.watch_model(watched_run, place / "watch.toml")
    assert (place / "news.watch" / "state.json").read_text() == content


def test_other_settings_begin_windows_anew_and_keep_the_place_in_the_file(
    watched_run: Path, place: Path
) -> None:
    cl.watch_model(watched_run, place / "watch.toml")
    text = (place / "watch.toml").read_text()
    (place / "watch.toml").write_text(text.replace("window_rows = 100", "window_rows = 200"))
    said: list[str] = []
    again = cl.watch_model(watched_run, place / "watch.toml", on_message=said.append).document
    assert again["rows"] == 1200
    assert again["drift"]["windows"] == 0
    assert "start again" in said[0]


def test_lines_that_are_no_rows_are_counted_and_the_stream_goes_on(
    watched_run: Path, place: Path
) -> None:
    with (place / "stream.jsonl").open("a") as file:
        file.write('{bad\n{"label": NaN}\n' + '{"label": "happy", "at": 1}\n' * 8)
        file.write(json.dumps({"label": "neutral", "at": START + 121 * HOUR}) + "\n")
    said: list[str] = []
    found = cl.watch_model(watched_run, place / "watch.toml", on_message=said.append).document
    assert found["rows"] == 1201
    assert found["refused"]["by_reason"] == {
        "not JSON": 1,
        "NaN or infinite": 1,
        "a label that the model does not have": 8,
    }
    assert found["refused"]["first"][0] == {"line": 1201, "reason": "not JSON"}
    assert len([text for text in said if "is no row" in text]) == 3


def test_the_command_says_what_is_not_measured_and_prints_json(
    watched_run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["model", "watch", str(watched_run), "--watch", str(place / "watch.toml"), "--once"]
    assert run([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"] == 1200
    assert "not measured: KS on embeddings" in err
    assert run(arguments) == 0
    assert "1,200 rows, 4 alerts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (('file = "reference.jsonl"', 'file = "none.jsonl"'), 3, "no such file"),
        (('answers = ["negative"]', 'answers = ["bad"]'), 2, "the model answers negative"),
        (('folder = "news.watch"', 'folder = "x"\nwebhook = "y"'), 2, "unknown key"),
        (('file = "stream.jsonl"', 'file = "none.jsonl"'), 3, "no such file"),
        (('time = "at"', ""), 0, "rows"),
    ],
)
def test_bad_input_is_one_message_and_its_exit_code(
    watched_run: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    code: int,
    told: str,
) -> None:
    text = (place / "watch.toml").read_text()
    (place / "watch.toml").write_text(text.replace(*change))
    arguments = ["model", "watch", str(watched_run), "--watch", str(place / "watch.toml"), "--once"]
    assert run(arguments) == code
    shown = "".join(capsys.readouterr())
    assert told in shown
    assert "Traceback" not in shown


def test_a_reference_of_another_task_is_refused_with_its_lines(
    watched_run: Path, place: Path
) -> None:
    write_lines(place / "reference.jsonl", [{"score": 1.0}] * 80)
    with pytest.raises(DataError, match="80 lines are none \\(line 1: no label"):
        cl.watch_model(watched_run, place / "watch.toml")


def test_a_reference_needs_no_times_where_the_stream_has_them(
    watched_run: Path, place: Path
) -> None:
    rows = [json.loads(line) for line in (place / "reference.jsonl").read_text().splitlines()]
    dated = cl.watch_model(watched_run, place / "watch.toml").document["rows"]
    untimed = [{name: cell for name, cell in row.items() if name != "at"} for row in rows]
    assert untimed != rows
    write_lines(place / "reference.jsonl", untimed)
    shutil.rmtree(place / "news.watch")
    assert cl.watch_model(watched_run, place / "watch.toml").document["rows"] == dated


def test_a_chat_s_lengths_and_refusals_are_watched(tmp_path: Path, gpt2: Path) -> None:
    exported(tmp_path / "run", gpt2, TaskConfig(kind="causal-lm", max_length=12))
    rng = np.random.default_rng(1)

    def replies(count: int, refused: float) -> list[dict[str, Any]]:
        said = rng.random(count) < refused
        return [{"reply": "I cannot answer that" if one else "x" * 30} for one in said]

    write_lines(tmp_path / "reference.jsonl", replies(400, 0.1))
    write_lines(tmp_path / "stream.jsonl", replies(100, 0.9))
    path = write_watch(tmp_path, source='file = "stream.jsonl"')
    path.write_text(path.read_text().replace('answers = ["negative"]', 'answers = ["refusal"]'))
    found = cl.watch_model(tmp_path / "run", path).document
    assert found["drift"]["stands"] == ["refusal", "reply length"]
    assert found["unfit"]["chi-square on labels"].startswith("a chat has no labels")


def test_texts_of_another_kind_are_found_by_an_encoder(
    watched_run: Path, tmp_path: Path, bert: Path
) -> None:
    """Labels and lengths are as they were; the words are others."""
    rng = np.random.default_rng(1)

    def rows(count: int, words: tuple[str, ...]) -> list[dict[str, Any]]:
        texts = [" ".join(rng.choice(words, size=6)) for _ in range(count)]
        return [{"label": "neutral", "text": text} for text in texts]

    usual = ("chest", "pain", "heart")
    write_lines(tmp_path / "reference.jsonl", rows(80, usual))
    write_lines(tmp_path / "stream.jsonl", rows(50, usual) + rows(50, ("skin", "rash", "knee")))
    path = write_watch(tmp_path, source=f'file = "stream.jsonl"\nencoder = "{bert}"')
    path.write_text(path.read_text().replace("window_rows = 100", "window_rows = 50"))
    found = cl.watch_model(watched_run, path).document
    first, second = found["drift"]["last"]
    moved = {f["feature"] for f in second["figures"] if f["drifts"]}
    assert any(one.startswith("embedding ") for one in moved)
    assert not any(f["drifts"] for f in first["figures"])
    assert "KS on embeddings" not in found["unfit"]


def test_a_replayed_history_counts_what_was_found_and_what_was_false(
    watched_run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = (START + HOUR * hour for hour in SURGE)
    event = {"kind": "surge", "key": "company=Acme", "start": first, "end": last}
    missed = {**event, "start": first - 10 * HOUR, "end": first - 9 * HOUR}
    write_lines(place / "events.jsonl", [event, missed])
    found = cl.replay_history(
        watched_run, place / "watch.toml", place / "stream.jsonl", place / "events.jsonl"
    )
    surges = found.tallies[1]
    assert (surges.events, surges.detected, surges.false_alarms) == (2, 1, 0)
    assert surges.found is not None
    assert surges.found.value == 0.5
    assert surges.delays[0] <= 2 * HOUR
    assert not (place / "news.watch").exists()
    assert not (place / "alerts.jsonl").exists()
    shown = ["--history", str(place / "stream.jsonl"), "--events", str(place / "events.jsonl")]
    command = ["model", "watch", str(watched_run), "--watch", str(place / "watch.toml"), *shown]
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.to_json()
    assert run(command) == 0
    assert run(command[:-2]) == 2


def test_false_alarms_are_rarer_than_declared_on_calm_histories(
    watched_run: Path, place: Path
) -> None:
    """Five histories of five days without an event: 520 looks after the past is there, and 60
    windows, of a horizon of 100 looks and 365 windows at 5 %: 0.27 false alarms are expected at
    most, so three or more have a probability under 1 %."""
    (place / "events.jsonl").write_text("")
    false = 0
    for seed in range(5):
        rng = np.random.default_rng(100 + seed)
        write_lines(place / "calm.jsonl", news(rng, 120))
        found = cl.replay_history(
            watched_run, place / "watch.toml", place / "calm.jsonl", place / "events.jsonl"
        )
        false += sum(one.false_alarms for one in found.tallies)
    assert false <= 2


def test_alerts_are_matched_to_events_by_hand() -> None:
    """One event from 100 to 200 with a grace of 10 in a span of 1,000 s."""

    def begins(at: float, key: str = "acme") -> Any:
        return make_alert("n", "surge", key, "begins", at, "", {})

    event = TrueEvent("surge", "acme", 100, 200)
    alerts = [begins(50), begins(150), begins(210), begins(211), begins(150, "other")]
    found = tally("surge", alerts, [event], (0, 1000), 10)
    assert (found.detected, found.repeats, found.false_alarms) == (1, 1, 3)
    assert found.delays == (50.0,)
    assert found.calm_days * 86_400 == pytest.approx(1000 - 110)
    assert found.rate is not None
    assert found.rate.value == pytest.approx(3 / (890 / 86_400))
    assert tally("drift", alerts, [event], (0, 1000), 10).false_alarms == 0


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[1]",
        '{"kind": "flood", "start": 1, "end": 2}',
        '{"kind": "drift", "start": 2, "end": 1}',
        '{"kind": "drift", "start": "x", "end": 1}',
        '{"kind": "drift", "start": 1, "end": 2, "topic": "x"}',
        '{"kind": "drift", "key": 3, "start": 1, "end": 2}',
        "x" * 5000,
    ],
)
def test_an_event_that_is_none_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f'{{"kind": "drift", "start": 1, "end": 2}}\n{line}\n')
    with pytest.raises(DataError, match="line 2: no event"):
        read_events(path)


def test_a_history_needs_times(watched_run: Path, place: Path) -> None:
    path = write_watch(place, source='file = "stream.jsonl"')
    (place / "events.jsonl").write_text("")
    with pytest.raises(UsageError, match="set time in"):
        cl.replay_history(watched_run, path, place / "stream.jsonl", place / "events.jsonl")


def test_python_watches_files_alone(watched_run: Path, place: Path) -> None:
    path = write_watch(place, source='kind = "stdin"')
    with pytest.raises(UsageError, match='"file" is needed here'):
        cl.watch_model(watched_run, path)


def test_a_hostile_topic_acts_neither_on_the_page_nor_in_metrics(
    watched_run: Path, place: Path
) -> None:
    rows = [json.loads(line) for line in (place / "stream.jsonl").read_text().splitlines()]
    name = '<script>alert(1)</script>"\\n'
    write_lines(place / "stream.jsonl", [{**row, "company": name} for row in rows])
    report = cl.watch_model(watched_run, place / "watch.toml").document
    page = watch_page(report, 0.1, 0.25)
    assert "<script" not in page
    watch = open_watch(watched_run, read_watch_file(place / "watch.toml"))
    state = read_state(place / "news.watch")
    assert state is not None
    text = metrics_text(watch.plan, state).decode()
    from prometheus_client.parser import text_string_to_metric_families

    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    topics = {s.labels.get("topic") for s in samples if s.name == "cloister_watch_topic_count"}
    assert topics == {f"company={name}"}
