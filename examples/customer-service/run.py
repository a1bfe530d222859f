"""Three desks train one chat model privately; then a desk's assistant answers from its own pages.

    python examples/customer-service/run.py [FOLDER] [--serve] [--port N] [--desk NAME]

README.md beside this file says what it shows. `--serve` keeps the page up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dialogues import PUBLIC, desks, dialogues
from measure import Question, Scores, before_and_after
from prepare import framed_rows, index_pages, marks_of, write_rows
from services import (
    check_port,
    cloister,
    cosine,
    new_folder,
    program,
    say,
    serving,
    wait_for_ctrl_c,
    whole,
)

from cloister.documents.encoder import open_encoder
from cloister.models.config import DEFAULT_BASE
from cloister.models.packaged import SMOLLM2
from cloister.printable import one_line
from cloister.service.library import Library

HERE = Path(__file__).parent
# The least similarity at which there is an answer. Of the 96 questions of desks.toml, 0.84 have
# their own page that near by all-MiniLM-L6-v2, and 101 pages are shown; at 0.3, the service's own,
# 0.96 and 165, and each page costs 40 tokens.
LEAST = 0.4
# Public dialogues whose page is found: of their answers the run reports perplexity, to their
# questions the assistant replies.
TESTED = 12
# Tokens of a record: the longest of 400 customers has 181, with two pages.
LONGEST = 192
# Of a reply over HTTP: more than the desks' longest answer has.
REPLY_TOKENS = 80
# Longest reply that is shown in the summary, in characters.
SHOWN = 300
# Nothing of it is on a desk's pages.
STRANGE = "Who won the football match last night?"
ASKED = {
    "bank": "Hi, I lost my card on the train. What now?",
    "rail": "Can I take my bike with me?",
    "power": "All lights went out, what should I do?",
    PUBLIC: "I have not finished my book, can I keep it?",
}
# Seconds for a reply on a machine that does other things too.
PATIENCE = 120.0


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs/customer-service"), help="a new folder"
    )
    parser.add_argument("--serve", action="store_true", help="keep the page up until Ctrl-C")
    parser.add_argument("--port", type=int, choices=range(65536), metavar="N", default=0)
    parser.add_argument("--desk", choices=ASKED, default="bank", help="whose page is served")
    parser.add_argument("--base", default=SMOLLM2, help="the chat model: a hub id or a folder")
    parser.add_argument("--encoder", default=DEFAULT_BASE, help="of pages and questions, likewise")
    parser.add_argument(
        "--least", type=cosine, default=LEAST, help="similarity (docs/documents.md)"
    )
    parser.add_argument("--customers", type=whole, default=400, help="of each desk")
    parser.add_argument("--rounds", type=whole, default=10)
    return parser.parse_args(words)


def main(words: Sequence[str] | None) -> None:
    """Runs the whole example."""
    asked = options(words)
    check_port(asked.port)
    folder = new_folder(asked.folder)
    public, questions = prepare(folder, asked)
    run = folder / "run"
    cloister("simulate", str(folder / "study.toml"), "--out", str(run))
    say("\n… asking the assistant of the public desk, before and after")
    before, after = before_and_after(run, public, questions)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    with serving(*service(folder, asked)) as address:
        summary(result, questions, before, after)
        for question in (ASKED[asked.desk], STRANGE):
            show(question, ask(address, question))
        say(f"\nThe page of {desks()[asked.desk].name}'s assistant: {address}")
        if asked.serve:
            say("It stays until Ctrl-C.")
            wait_for_ctrl_c()
    kept = asked.folder / asked.desk / "feedback.db"
    say(f"\nModel, pages and ledgers: {asked.folder}. Serve again, and see what people said:\n")
    say(f"    cloister serve {' '.join(service(asked.folder, asked))}")
    say(f"    cloister site feedback review {kept}\n")


def prepare(folder: Path, asked: argparse.Namespace) -> tuple[Library, list[Question]]:
    """Writes indexes, data and recipe.

    Returns:
        The public desk's pages, and some of its questions.
    """
    say("… each desk indexes its pages and frames its past dialogues")
    encoder, marks = open_encoder(Path(asked.encoder)), marks_of(asked.base)
    rows: dict[str, list[dict[str, Any]]] = {}
    for key, desk in desks().items():
        library = index_pages(desk, folder / key, encoder, asked.least)
        past = dialogues(desk, asked.customers)
        if key == PUBLIC:  # of its dialogues, only as many as are tested
            past = islice(past, 2 * TESTED)
        framed = framed_rows(past, library, marks)
        rows[key] = list(islice(framed, TESTED if key == PUBLIC else None))
        if key == PUBLIC:
            public = library
    test = rows.pop(PUBLIC)
    write_rows(folder / "test.jsonl", test)
    write_rows(folder / "train.jsonl", [row for own in rows.values() for row in own])
    (folder / "study.toml").write_text(recipe(folder, asked), encoding="utf-8")
    return public, [
        Question(row["question"], row["messages"][-1]["content"], row["fact"]) for row in test
    ]


def recipe(folder: Path, asked: argparse.Namespace) -> str:
    """The study's recipe."""
    base = str(Path(asked.base).resolve()) if Path(asked.base).is_dir() else asked.base
    return (
        (HERE / "study.toml")
        .read_text(encoding="utf-8")
        .format(
            base=json.dumps(base),
            max_length=LONGEST,
            train=json.dumps(str(folder / "train.jsonl")),
            test=json.dumps(str(folder / "test.jsonl")),
            customers=asked.customers,
            batch=max(asked.customers // 25, 1),
            rounds=asked.rounds,
        )
    )


def service(folder: Path, asked: argparse.Namespace) -> list[str]:
    """The words of `cloister serve` for one desk's assistant."""
    pages = folder / asked.desk / "pages.index"
    words = [str(folder / "run"), "--documents", str(pages), "--least-score", str(asked.least)]
    kept = folder / asked.desk / "feedback.db"
    return [*words, "--port", str(asked.port), "--feedback", str(kept)]


def ask(address: str, question: str) -> dict[str, Any]:
    """The assistant's answer over HTTP, in OpenAI's form."""
    turns = [{"role": "user", "content": question}]
    body = {"messages": turns, "max_tokens": REPLY_TOKENS}
    place = f"{address}v1/chat/completions"
    answer = httpx.post(place, json=body, timeout=PATIENCE, trust_env=False)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def show(question: str, found: dict[str, Any]) -> None:
    """Prints a question, its reply and the passages."""
    say(f"\nCustomer:  {question}")
    say(f"Assistant: {found['choices'][0]['message']['content']}")
    for passage in found["passages"]:
        cited = "cited" if passage["cited"] else "not cited"
        say(f"  [{passage['number']}] {passage['title']} ({cited}): {passage['text']}")


def summary(
    result: dict[str, Any], questions: Sequence[Question], before: Scores, after: Scores
) -> None:
    """Prints what was promised, and the scores before and after."""
    promise = max((site["promise"] for site in result["sites"]), key=lambda one: one["epsilon"])
    say(
        f"\nε = {promise['epsilon']:.2f} for one {promise['unit']} (a customer with all dialogues) "
        f"of a desk, added or removed, δ = {promise['delta']:g}, accountant "
        f"{promise['accountant'].upper()}, of the whole plan of {result['rounds']} rounds, "
        f"against {', '.join(promise['adversaries'])}"
    )
    title = f"{len(questions)} questions to the public desk, which trained on nothing"
    say(f"\n{title:56} base  trained")
    old, new = (result[name]["perplexity"] for name in ("untrained_test", "test"))
    for name, one, other in (
        ("perplexity of the desk's answers", old, new),
        ("ROUGE-L of the assistant's replies", before.rouge_l, after.rouge_l),
        ("replies that cite a passage", before.cited, after.cited),
        ("replies that hold the fact", before.right, after.right),
    ):
        say(f"{name:56} {one:4.2f}  {other:7.2f}")
    say(f"\nCustomer:  {questions[0].text}\nDesk:      {questions[0].answer}")
    for name, scores in (("Base:", before), ("Trained:", after)):
        say(f"{name:10} {one_line(scores.replies[0], SHOWN)}")


if __name__ == "__main__":
    began = time.monotonic()
    program(main)
    say(f"{time.monotonic() - began:.0f} s")
