"""Four schools train two models privately; then a tutor scores, hints and recommends on a page.

    python examples/tutor/run.py [FOLDER] [--serve] [--port N]

README.md beside this file says what it shows. `--serve` keeps the page up until Ctrl-C.
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

from front import Tutor, make_app, on_this_machine
from lessons import PUBLIC, SCHOOLS, Answer, answers, material_id, questions, read_as
from services import check_port, cloister, new_folder, program, say, serving, wait_for_ctrl_c, whole

from cloister.models.config import DEFAULT_BASE

HERE = Path(__file__).parent
# The two studies, and their rounds: a map of 147,456 numbers takes noise in each round, a head of
# 385 hardly does.
STUDIES = {"score": 40, "material": 20}
# Pupils of the public class, each with four answers.
TESTED = 60
# Two answers that show what the tutor does; nobody wrote them in these words.
TRIED = (
    ("floating", "The boat shoves the water out of the way. My uncle has one."),
    ("rain", "I do not know."),
)
# Seconds for advice on a machine that does other things too.
PATIENCE = 120.0


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs/tutor"), help="a new folder"
    )
    parser.add_argument("--serve", action="store_true", help="keep the page up until Ctrl-C")
    parser.add_argument("--port", type=int, choices=range(65536), metavar="N", default=0)
    parser.add_argument("--base", default=DEFAULT_BASE, help="the encoder: a hub id or a folder")
    parser.add_argument("--pupils", type=whole, default=200, help="of each school")
    parser.add_argument("--rounds", type=whole, help="of both studies; absent: 40 and 20")
    return parser.parse_args(words)


def main(words: Sequence[str] | None) -> None:
    """Runs the whole example."""
    asked = options(words)
    check_port(asked.port)
    folder = new_folder(asked.folder)
    prepare(folder, asked)
    for study in STUDIES:
        cloister("simulate", str(folder / f"{study}.toml"), "--out", str(folder / study))
    with tutor(folder, asked.port) as address:
        summary(folder)
        for key, text in TRIED:
            show(key, text, ask(address, key, text))
        say(f"\nThe tutor's page: {address}")
        if asked.serve:
            say("It stays until Ctrl-C.")
            wait_for_ctrl_c()
    say(f"\nModels and ledgers are in {asked.folder}. What teachers corrected is reviewed with\n")
    say(f"    cloister site feedback review {asked.folder / 'feedback.db'}\n")


def prepare(folder: Path, asked: argparse.Namespace) -> None:
    """Writes the schools' records, the public class's, the material and both recipes."""
    course = questions()
    rows = [
        {"id": material_id(question, idea), "text": f"{idea.title}. {idea.text}"}
        for question in course
        for idea in question.ideas
    ]
    write(folder / "passages.jsonl", rows)
    base = str(Path(asked.base).resolve()) if Path(asked.base).is_dir() else asked.base
    private = [one for school in SCHOOLS for one in answers(school, asked.pupils)]
    public = list(answers(PUBLIC, TESTED))
    for study, rounds in STUDIES.items():
        files = {"train": private, "test": public}
        places = {name: folder / f"{study}-{name}.jsonl" for name in files}
        for name, found in files.items():
            write(places[name], records(study, found))
        text = (HERE / f"{study}.toml").read_text(encoding="utf-8")
        filled = text.format(
            base=json.dumps(base),
            passages=json.dumps(str(folder / "passages.jsonl")),
            pupils=asked.pupils,
            batch=max(asked.pupils // 4, 1),
            rounds=asked.rounds or rounds,
            **{name: json.dumps(str(place)) for name, place in places.items()},
        )
        (folder / f"{study}.toml").write_text(filled, encoding="utf-8")


def records(study: str, found: Iterable[Answer]) -> Iterator[dict[str, Any]]:
    """A study's records of some answers; a full one has no material."""
    for one in found:
        row = {
            "text": read_as(one.question, one.text),
            "site": one.school,
            "person": one.pupil,
        }
        if study == "score":
            yield {**row, "score": one.score}
        elif one.material is not None:
            yield {**row, "passage": one.material}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@contextlib.contextmanager
def tutor(folder: Path, port: int) -> Iterator[str]:
    """The two services and the page before them, until the block ends; its address."""
    kept = str(folder / "feedback.db")
    with (
        serving(str(folder / "score"), "--port", "0", "--feedback", kept) as scorer,
        serving(str(folder / "material"), "--port", "0") as finder,
        on_this_machine(make_app(Tutor(scorer, finder)), port) as address,
    ):
        yield address


def ask(address: str, question: str, answer: str) -> dict[str, Any]:
    """The tutor's advice over HTTP."""
    body = {"question": question, "answer": answer}
    told = httpx.post(f"{address}advice", json=body, timeout=PATIENCE, trust_env=False)
    told.raise_for_status()
    found: dict[str, Any] = told.json()
    return found


def show(key: str, text: str, told: dict[str, Any]) -> None:
    """Prints an answer and the advice on it."""
    question = next(one for one in questions() if one.key == key)
    say(f"\n{question.text}\nPupil: {text}")
    say(f"Tutor: {told['grade']} of {told['full']} points. {told['hint']}")
    if told["material"]:
        say(f"       Read: {told['material']['title']}. {told['material']['text']}")


def summary(folder: Path) -> None:
    """Prints what was promised, and the scores before and after."""
    say()
    spent, at_most = 0.0, 0.0
    scores = {"score": ("qwk", "mae"), "material": ("mrr", "recall@1")}
    table = [f"{'on a public class that trained on nothing':42} {'base':>8} {'trained':>8}"]
    for study, names in scores.items():
        result = json.loads((folder / study / "result.json").read_text(encoding="utf-8"))
        promise = max((s["promise"] for s in result["sites"]), key=lambda one: one["epsilon"])
        spent, at_most = spent + promise["epsilon"], at_most + promise["delta"]
        say(
            f"{study}: ε = {promise['epsilon']:.2f} for one {promise['unit']} (a pupil with all "
            f"answers) of a school, added or removed, δ = {promise['delta']:g}, accountant "
            f"{promise['accountant'].upper()}, of the whole plan of {result['rounds']} rounds, "
            f"against {', '.join(promise['adversaries'])}"
        )
        for name in names:
            old, new = (result[one][name] for one in ("untrained_test", "test"))
            table.append(f"{f'{study}: {name}':42} {old:8.3f} {new:8.3f}")
    say(
        f"The same pupils are in both: together ε ≤ {spent:.2f}, δ ≤ {at_most:g} (sums: basic "
        "composition)\n"
    )
    say("\n".join(table))


if __name__ == "__main__":
    began = time.monotonic()
    program(main)
    say(f"{time.monotonic() - began:.0f} s")
