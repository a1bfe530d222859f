"""Three shops train a recommender privately; customers correct it, and the next study goes on.

    python examples/recommender/run.py [FOLDER] [--serve] [--port N]

README.md beside this file says what it shows. `--serve` keeps the page up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from people import PUBLIC, SHOPS, Customer, catalogue, customers, returning
from services import check_port, cloister, new_folder, program, say, serving, wait_for_ctrl_c, whole

from cloister.models.config import DEFAULT_BASE

HERE = Path(__file__).parent
# The shop whose service people use, and correct.
ASKED = "harbour"
# Public customers of each year, whose last purchase is predicted.
TESTED = 300
# People of one request for predictions: what the service takes (`service.bodies.MOST_INPUTS`).
AT_ONCE = 256
# Whom the run shows: what they have, oldest first.
SHOWN = (
    ("camping-1-green", "camping-2-green"),
    ("coffee-1-expert", "baking-1-cheap", "coffee-2-expert"),
)
# Items of a list that are shown.
LISTED = 3
# Seconds for an answer on a machine that does other things too.
PATIENCE = 120.0

Rows = Iterable[dict[str, Any]]


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs/recommender"), help="a new folder"
    )
    parser.add_argument("--serve", action="store_true", help="keep the page up until Ctrl-C")
    parser.add_argument("--port", type=int, choices=range(65536), metavar="N", default=0)
    parser.add_argument("--base", default=DEFAULT_BASE, help="the encoder: a hub id or a folder")
    parser.add_argument("--people", type=whole, default=400, help="of each shop")
    parser.add_argument("--rounds", type=whole, default=30, help="of each study")
    return parser.parse_args(words)


def main(words: Sequence[str] | None) -> None:
    """Runs the whole example."""
    asked = options(words)
    check_port(asked.port)
    folder = new_folder(asked.folder)
    write(folder / "items.jsonl", catalogue())
    last_year = {shop: customers(shop, asked.people) for shop in SHOPS}
    for shop, found in last_year.items():
        write(folder / f"{shop}.jsonl", (one.row() for one in found))
    for year in ("last", "this"):
        public = customers(PUBLIC, TESTED, this_year=year == "this")
        write(folder / f"test-{year}-year.jsonl", (one.row() for one in public))

    train(folder, asked, "last-year", [folder / f"{shop}.jsonl" for shop in SHOPS])
    feedback = str(folder / "feedback.db")
    with serving(str(folder / "last-year"), "--port", "0", "--feedback", feedback) as address:
        lists = [recommended(address, has) for has in SHOWN]
        say(f"\n… {len(last_year[ASKED])} customers of {ASKED} come back, and say what they took")
        kept = correct(address, last_year[ASKED])
    say(f"  {kept} corrections, each with consent")
    review(folder, feedback, last_year)
    files = [folder / f"{shop}-2.jsonl" for shop in SHOPS]
    train(folder, asked, "this-year", files, "--from", str(folder / "last-year"))

    words_of_service = [str(folder / "this-year"), "--port", str(asked.port)]
    with serving(*words_of_service, "--feedback", feedback) as address:
        summary(folder)
        for has, before in zip(SHOWN, lists, strict=True):
            show(has, before, recommended(address, has))
        say(f"\nThe page of {ASKED}: {address}")
        if asked.serve:
            say("It stays until Ctrl-C.")
            wait_for_ctrl_c()
    say(f"\nModels and ledgers are in {asked.folder}. What people say is reviewed with\n")
    say(f"    cloister site feedback review {asked.folder / 'feedback.db'}\n")


def train(
    folder: Path, asked: argparse.Namespace, name: str, files: Sequence[Path], *more: str
) -> None:
    """Writes a year's recipe and trains it."""
    train_file = folder / f"train-{name}.jsonl"
    train_file.write_text("".join(one.read_text("utf-8") for one in files), encoding="utf-8")
    base = str(Path(asked.base).resolve()) if Path(asked.base).is_dir() else asked.base
    old = f"\nold_test = {json.dumps(str(folder / 'test-last-year.jsonl'))}" if more else ""
    text = (
        (HERE / "study.toml")
        .read_text(encoding="utf-8")
        .format(
            name=name,
            base=json.dumps(base),
            items=json.dumps(str(folder / "items.jsonl")),
            train=json.dumps(str(train_file)),
            test=json.dumps(str(folder / f"test-{name}.jsonl")),
            old_test=old,
            people=asked.people,
            batch=max(asked.people // 4, 1),
            rounds=asked.rounds,
        )
    )
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    cloister("simulate", str(folder / f"{name}.toml"), *more, "--out", str(folder / name))


def write(path: Path, rows: Rows) -> None:
    """Writes rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def recommended(address: str, has: Sequence[str]) -> dict[str, Any]:
    """What the service recommends to somebody, with reasons."""
    body = {"inputs": [list(has)], "reasons": True}
    found: dict[str, Any] = asked_of(address, "v1/predict", body)["predictions"][0]
    return found


def correct(address: str, found: Sequence[Customer]) -> int:
    """Customers look at their lists and say what they took; returns how many did."""
    visits = list(returning(found))
    for first in range(0, len(visits), AT_ONCE):
        some = visits[first : first + AT_ONCE]
        told = asked_of(address, "v1/predict", {"inputs": [list(one.items) for one, _ in some]})
        rows = zip(some, told["predictions"], told["receipts"], strict=True)
        for (customer, took), answer, receipt in rows:
            is_right = answer["items"][0]["item"] == took
            body = {
                "receipt": receipt,
                "input": list(customer.items),
                "answer": answer,
                "is_right": is_right,
                "person": customer.person,
                "consent": True,
            }
            asked_of(
                address, "v1/feedback", body | ({} if is_right else {"correction": {"item": took}})
            )
    return len(visits)


def asked_of(address: str, place: str, body: dict[str, Any]) -> dict[str, Any]:
    """What a service answers."""
    told = httpx.post(f"{address}{place}", json=body, timeout=PATIENCE, trust_env=False)
    told.raise_for_status()
    found: dict[str, Any] = told.json()
    return found


def review(folder: Path, feedback: str, last_year: dict[str, list[Customer]]) -> None:
    """Accepts the corrections and writes each shop's file of this year, `SHOP-2.jsonl`.

    The shop that was asked adds its corrections; the others, which have no service, know from their
    tills what came next. Old rows stay: they are the replay.
    """
    cloister("site", "feedback", "review", feedback, "--accept", "all")
    exported = folder / f"{ASKED}-corrected.jsonl"
    before = str(folder / f"{ASKED}.jsonl")
    cloister("site", "feedback", "export", feedback, "--with", before, "--out", str(exported))
    for shop in SHOPS:
        if shop == ASKED:
            rows = [json.loads(line) for line in exported.read_text("utf-8").splitlines()]
            new: Rows = ({name: row[name] for name in ("items", "person")} for row in rows)
        else:
            visits = returning(last_year[shop])
            came = (Customer(shop, one.person, (*one.items, took)) for one, took in visits)
            new = (one.row() for one in [*came, *last_year[shop]])
        write(folder / f"{shop}-2.jsonl", ({**row, "site": shop} for row in new))


def show(has: Sequence[str], before: dict[str, Any], after: dict[str, Any]) -> None:
    """Prints somebody's lists of both models, with reasons."""
    say(f"\nSomebody has {', '.join(has)}. Next, by last year's model and by this year's:")
    for name, found in (("last", before), ("this", after)):
        told = [
            one["item"] + (f" (because of {one['because']['item']})" if "because" in one else "")
            for one in found["items"][:LISTED]
        ]
        say(f"  {name} year  {'; '.join(told)}")


def summary(folder: Path) -> None:
    """Prints what was promised over both years, and the scores before and after each study."""
    results = [
        json.loads((folder / name / "result.json").read_text(encoding="utf-8"))
        for name in ("last-year", "this-year")
    ]
    say()
    for result, what in zip(results, ("last year's study", "both years together"), strict=True):
        site = max(result["sites"], key=lambda one: one["promise"]["epsilon"])
        promise, spent = site["promise"], site["spent"]
        basis = promise["basis"].replace("-", " ")
        say(
            f"{what}: ε = {promise['epsilon']:.2f} for one {promise['unit']} (a customer with all "
            f"purchases) of a shop, added or removed, δ = {promise['delta']:g}, accountant "
            f"{promise['accountant'].upper()}, of the {basis}, against "
            f"{', '.join(promise['adversaries'])}; spent by the ledger, an indication: "
            f"{spent['epsilon']:.2f}"
        )
    first, second = results
    say(f"\n{'NDCG@10 on public customers who trained nothing':48} {'before':>8} {'after':>8}")
    metric = "ndcg@10"
    for name, before, after in (
        ("last year's customers, last year's study", first["untrained_test"], first["test"]),
        ("this year's customers, this year's study", second["untrained_test"], second["test"]),
        (
            "last year's customers, this year's study",
            second["old_test"]["before"],
            second["old_test"]["after"],
        ),
    ):
        say(f"{name:48} {before[metric]:8.3f} {after[metric]:8.3f}")
    say(
        f"{'the same ten items to all, last year and this':48} {first['majority']:8.3f} "
        f"{second['majority']:8.3f}"
    )


if __name__ == "__main__":
    began = time.monotonic()
    program(main)
    say(f"{time.monotonic() - began:.0f} s")
