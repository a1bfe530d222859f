"""Three banks teach two models to read news; then a monitor watches a stream and reports each day.

    python examples/finance-monitor/run.py [FOLDER] [--serve] [--port N]

README.md beside this file says what it shows. `--serve` keeps the pages up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from daily import daily, date_of, html, markdown
from news import (
    AN_HOUR,
    BANKS,
    BEGINS,
    DAY,
    DAYS,
    LIVE,
    PUBLIC,
    REFERENCE,
    SENTIMENTS,
    News,
    filed,
    happened,
    stream,
    topics,
)
from services import (
    check_port,
    cloister,
    new_folder,
    program,
    running,
    say,
    serving,
    wait_for_ctrl_c,
    whole,
)

from cloister.models.config import DEFAULT_BASE
from cloister.watching.alert import iso

HERE = Path(__file__).parent
# The two studies, by their label's column.
STUDIES = {"sentiment": SENTIMENTS, "topic": topics()}
# The agency's labelled news, on which both are tested.
TESTED = 300
# Texts of one request: what the service takes (`service.bodies.MOST_INPUTS`).
AT_ONCE = 256
# What the run asks the sentiment service; nobody wrote it in these words.
TRIED = "Halden must pay a huge penalty for polluting the river."
# The days at whose ends something is done: the reference's, the history's, and the live ones'.
WHEN = (REFERENCE, LIVE, *range(LIVE + 1, DAYS + 1))
FILES = {REFERENCE: "reference.jsonl"}
# Seconds for an answer on a machine that does other things too.
PATIENCE = 120.0


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs/finance-monitor"), help="a new folder"
    )
    parser.add_argument("--serve", action="store_true", help="keep the pages up until Ctrl-C")
    parser.add_argument("--port", type=int, choices=range(65536), metavar="N", default=0)
    parser.add_argument("--base", default=DEFAULT_BASE, help="the encoder: a hub id or a folder")
    parser.add_argument("--records", type=whole, default=400, help="of each bank")
    parser.add_argument("--rounds", type=whole, default=30, help="of each study")
    return parser.parse_args(words)


def main(words: Sequence[str] | None) -> None:
    """Runs the whole example."""
    asked = options(words)
    check_port(asked.port)
    folder = new_folder(asked.folder)
    for column in STUDIES:
        train(folder, asked, column)
    monitor(folder, asked)
    say(f"\nModels, ledgers, alerts and daily reports are in {asked.folder}.")


def monitor(folder: Path, asked: argparse.Namespace) -> None:
    """Has both models read the stream, watches it, and shows what came of it."""
    (folder / "watch.toml").write_text(
        (HERE / "watch.toml").read_text("utf-8").format(window_rows=24 * AN_HOUR, port=0),
        encoding="utf-8",
    )
    with readers(folder, asked.port) as (sentiment, topic):
        say("\n… two weeks of news go through both services")
        until = {day: [one for one in stream() if one.at < BEGINS + day * DAY] for day in WHEN}
        done: list[dict[str, Any]] = []
        for day in WHEN:
            done += read(sentiment, topic, until[day][len(done) :])
            write(folder / FILES.get(day, "predictions.jsonl"), done)
            if day == LIVE:
                replay(folder, done)
            if day >= LIVE:
                report(folder, done, day)
        summary(folder)
        show(sentiment, TRIED)
        with watched(folder) as page:
            say(f"\nThe sentiment page: {sentiment}")
            say(f"The monitor's page: {page}")
            if asked.serve:
                say("It stays until Ctrl-C.")
                wait_for_ctrl_c()


def train(folder: Path, asked: argparse.Namespace, column: str) -> None:
    """Writes a study's data and recipe, and trains it."""
    private = [one.record() for bank in BANKS for one in filed(bank, asked.records)]
    write(folder / "train.jsonl", private)
    write(folder / "test.jsonl", (one.record() for one in filed(PUBLIC, TESTED)))
    base = str(Path(asked.base).resolve()) if Path(asked.base).is_dir() else asked.base
    text = (
        (HERE / "study.toml")
        .read_text(encoding="utf-8")
        .format(
            column=column,
            base=json.dumps(base),
            labels=json.dumps(list(STUDIES[column])),
            train=json.dumps(str(folder / "train.jsonl")),
            test=json.dumps(str(folder / "test.jsonl")),
            records=asked.records,
            batch=max(asked.records // 4, 1),
            rounds=asked.rounds,
        )
    )
    (folder / f"{column}.toml").write_text(text, encoding="utf-8")
    cloister("simulate", str(folder / f"{column}.toml"), "--out", str(folder / column))


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@contextlib.contextmanager
def readers(folder: Path, port: int) -> Iterator[tuple[str, str]]:
    """The services of both models, until the block ends; their addresses."""
    with (
        serving(str(folder / "sentiment"), "--port", str(port)) as sentiment,
        serving(str(folder / "topic"), "--port", "0") as topic,
    ):
        yield sentiment, topic


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[str]:
    """The monitor as a process that goes on watching, until the block ends; its page's address."""
    with running("model", "watch", *watching(folder)) as address:
        yield address


def read(sentiment: str, topic: str, news: Sequence[News]) -> list[dict[str, Any]]:
    """Has both services read news; each becomes a row of the monitor's stream."""
    rows = []
    for first in range(0, len(news), AT_ONCE):
        some = news[first : first + AT_ONCE]
        texts = [one.text for one in some]
        answers = zip(some, predicted(sentiment, texts), predicted(topic, texts), strict=True)
        rows += [
            {
                "at": iso(one.at),
                "company": one.company,
                "text": one.text,
                "topic": about["label"],
                **{name: felt[name] for name in ("label", "probabilities", "is_cut")},
            }
            for one, felt, about in answers
        ]
    return rows


def predicted(address: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """A service's predictions."""
    body = {"inputs": list(texts)}
    told = httpx.post(f"{address}v1/predict", json=body, timeout=PATIENCE, trust_env=False)
    told.raise_for_status()
    found: list[dict[str, Any]] = told.json()["predictions"]
    return found


def replay(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Counts the monitor's detections and false alarms on the days of which all is known."""
    write(folder / "history.jsonl", rows)
    write(folder / "happened.jsonl", (dict(one) for one in happened()))
    history = ("--history", str(folder / "history.jsonl"))
    events = ("--events", str(folder / "happened.jsonl"))
    cloister("model", "watch", *watching(folder), *history, *events)


def watching(folder: Path) -> tuple[str, ...]:
    """The model and the watch file, as words of the command."""
    return (str(folder / "sentiment"), "--watch", str(folder / "watch.toml"))


def report(folder: Path, rows: Sequence[dict[str, Any]], day: int) -> None:
    """Has the monitor read what is new, and writes the report of the day that has ended."""
    cloister("model", "watch", *watching(folder), "--once")
    document = json.loads((folder / "news.watch" / "report.json").read_text(encoding="utf-8"))
    found = daily(document, rows, date_of(BEGINS + (day - 1) * DAY))
    for ending, text in (("md", markdown(found)), ("html", html(found))):
        (folder / f"daily-{found.day}.{ending}").write_text(text, encoding="utf-8")
    if day == DAYS:
        say(f"\n{markdown(found)}")


def show(address: str, text: str) -> None:
    """Prints what the sentiment service says of a text."""
    (answer,) = predicted(address, [text])
    say(f"{text} → {answer['label']} ({answer['probabilities'][answer['label']]:.2f})")


def summary(folder: Path) -> None:
    """Prints what was promised, and the scores before and after."""
    spent, at_most = 0.0, 0.0
    table = [f"{'on the public news of an agency':40} {'before':>8} {'after':>8}"]
    for study in STUDIES:
        result = json.loads((folder / study / "result.json").read_text(encoding="utf-8"))
        promise = max((s["promise"] for s in result["sites"]), key=lambda one: one["epsilon"])
        spent, at_most = spent + promise["epsilon"], at_most + promise["delta"]
        say(
            f"{study}: ε = {promise['epsilon']:.2f} for one {promise['unit']} (news as a bank's "
            f"analyst filed it), added or removed, δ = {promise['delta']:g}, accountant "
            f"{promise['accountant'].upper()}, of the whole plan of {result['rounds']} rounds, "
            f"against {', '.join(promise['adversaries'])}"
        )
        old, new = (result[one]["accuracy"] for one in ("untrained_test", "test"))
        table.append(f"{f'{study}: accuracy':40} {old:8.3f} {new:8.3f}")
    say(
        f"The same news are in both: together ε ≤ {spent:.2f}, δ ≤ {at_most:g} (sums: basic "
        "composition)\n"
    )
    say("\n".join(table))
    say()


if __name__ == "__main__":
    began = time.monotonic()
    program(main)
    say(f"{time.monotonic() - began:.0f} s")
