"""The default rates of adapters against others, in real simulations of five sites.

    python simulations/utility/adapters.py --data DATA [--tiny FOLDER] [--study "bank intents"]
    python simulations/utility/adapters.py --table

Each run is a recipe that states neither a rate nor a clip bound, so both follow from its noise, or
the same with that rate times a number, or with what recipes had before. The first command runs what
adapters.jsonl does not have yet; `--table` prints what is there. FOLDER has the base `stories260K`
(Karpathy's tinyllamas), small enough to try many settings of a language model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from grid_store import Row, Store, score, settings, where
from lora import outcomes, some

from cloister.recipe import Recipe, read_recipe

RESULTS = Path(__file__).parent / "adapters.jsonl"
NOT_RUN = "not run"
# What recipes had before.
BEFORE = ("privacy.max_grad_norm=8.0", "training.learning_rate=1.0")
# Adapters of the language model: as in the recipe for chats, and others.
WIDE = ("lora.r=8", "lora.alpha=16.0", 'lora.target_modules=["v_proj", "up_proj", "down_proj"]')
NARROW = ('lora.target_modules=["q_proj", "v_proj"]', "lora.top_layers=2")
DEFAULT: Mapping[str, tuple[str, ...]] = {"default": ()}
SHAPES: Mapping[str, tuple[str, ...]] = {
    "values and MLP, 2 layers": (*WIDE, "lora.top_layers=2"),
    "queries and values, 2 layers": NARROW,
}
# Speeches of the language model's test set that are scored.
TESTED = 326


class Study(NamedTuple):
    """What is learnt.

    Attributes:
        data: The data set's folder.
        metric: What is reported.
        share: Expected batch, as a part of a site's records.
        rounds: Of the study.
        shapes: Kinds of adapters, and the fields that say so.
        times: By what the default rate is multiplied; None: what recipes had before.
    """

    data: str
    metric: str
    share: float
    rounds: int
    shapes: Mapping[str, tuple[str, ...]]
    times: tuple[float | None, ...]


STUDIES = {
    name: Study(data, "accuracy", 0.25, 30, DEFAULT, (1.0, None, 1 / 3, 3.0))
    for name, data in {
        "movie reviews": "rt_polarity",
        "bank intents": "banking77",
        "product sentiment": "product_sentiment",
    }.items()
} | {
    "speeches": Study("shakespeare_roles", "perplexity", 0.1, 25, SHAPES, (1.0, None, 1 / 3, 3.0)),
}


@dataclass(frozen=True, kw_only=True)
class Rated:
    """A study, and how its rate is set.

    Attributes:
        epsilon: Of each site; its noise is shared by five, of which one may collude.
        shape: Which adapters, of the study's.
        train: `b`, or `none`: the head alone.
        times: The default rate times this; None: what recipes had before.
    """

    epsilon: float
    shape: str
    train: str = "b"
    times: float | None = 1.0

    def recipe(self, study: Study, files: Sequence[str], seed: int) -> Recipe:
        """The recipe; `files` states the data."""
        fields = (*files, *study.shapes[self.shape], f"study.seed={seed}")
        fields += ("data.sites=5", "data.partition=iid", "privacy.noise=shared")
        fields += (f"privacy.epsilon={self.epsilon}", f"lora.train={self.train}")
        fields += (f"federation.num_rounds={study.rounds}", "task.max_length=64")
        fields += (f"federation.evaluate_every={study.rounds}",)
        if self.times is None:
            return read_recipe(None, (*fields, *BEFORE))
        found = read_recipe(None, fields)
        rate = found.training.learning_rate * self.times
        return replace(found, training=replace(found.training, learning_rate=rate))


def methods(study: Study) -> Iterator[Rated]:
    """All of a study, the default first; heads alone where there are heads."""
    for times in study.times:
        for epsilon in (8.0, 1.0):
            for shape in study.shapes:
                yield Rated(epsilon=epsilon, shape=shape, times=times)
            if times == 1.0 and study.metric == "accuracy":
                yield Rated(epsilon=epsilon, shape="default", train="none")


def main(words: Sequence[str] | None = None) -> None:
    """Runs what is missing, or prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tiny", type=Path, help="folder of the base for `speeches`")
    parser.add_argument("--study", nargs="*", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(words)
    store = Store(given.results)
    if given.table:
        print(table(store.rows))
        return
    if given.data is None:
        parser.error("--data is needed to run; --table prints what was run")
    for name in given.study:
        if name == "speeches" and given.tiny is None:
            print("speeches: --tiny names no folder of a base; left out")
            continue
        with TemporaryDirectory() as folder:
            files = stated(STUDIES[name], given.data, given.tiny, Path(folder))
            run_study(store, STUDIES[name], files)


def run_study(store: Store, study: Study, files: Sequence[str]) -> None:
    """Runs what is missing of a study."""
    for method in methods(study):
        about = {"data": study.data, "split": "test", **settings(method), "seed": 0}
        if not store.has(about):
            store.append(about, outcomes(method.recipe(study, files, 0), study.metric)["test"])


def stated(study: Study, data: Path, tiny: Path | None, folder: Path) -> list[str]:
    """Fields that name a study's data, and what follows from them."""
    train, test = (data / study.data / f"{part}.jsonl" for part in ("train", "test"))
    rows = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
    fields = []
    if study.metric == "accuracy":
        labels = sorted({row["label"] for row in rows})
        fields.append(f"task.labels={json.dumps(labels, ensure_ascii=False)}")
    else:
        train, test = (chats(file, folder / file.name) for file in (train, test))
        test = some(test, TESTED, folder / "some.jsonl")
        fields += ["task.kind=causal-lm", "training.padded_lengths=[64]", f"model.base={tiny}"]
    records = len(rows) // 5
    batch = int(study.share * records)
    return [
        *fields,
        f"data.train={train}",
        f"data.test={test}",
        f"data.public_records={records}",
        f"training.expected_batch_size={batch}",
    ]


def chats(file: Path, found: Path) -> Path:
    """Writes speeches as conversations of one question, and says where."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        turns = ("user", "Speak."), ("assistant", json.loads(line)["text"])
        messages = [{"role": role, "content": content} for role, content in turns]
        lines.append(json.dumps({"messages": messages}) + "\n")
    found.write_text("".join(lines), encoding="utf-8")
    return found


def table(rows: Sequence[Row]) -> str:
    """Scores at the default rate and at others, as Markdown."""
    parts = []
    for metric in ("accuracy", "perplexity"):
        studies = [study for study in STUDIES.values() if study.metric == metric]
        times = studies[0].times
        heads = [said(value) for value in times] + ["head alone"] * (metric == "accuracy")
        lines = [
            f"| {metric} | ε | adapters | before training | {' | '.join(heads)} |",
            "|---" * (4 + len(heads)) + "|",
        ]
        for study in studies:
            for epsilon in (1.0, 8.0):
                for shape in study.shapes:
                    of = where(rows, data=study.data, epsilon=epsilon, shape=shape)
                    cells = [cell(where(of, train="b", times=value)) for value in times]
                    cells += [cell(where(of, train="none"))] * (metric == "accuracy")
                    before = f"{of[0]['untrained']:.3f}" if of else NOT_RUN
                    shown = [study.data, f"{epsilon:g}", shape, before, *cells]
                    lines.append(f"| {' | '.join(shown)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def said(times: float | None) -> str:
    """A column's head."""
    if times is None:
        return "clip 8, rate 1 (before)"
    return "rate by noise" if times == 1.0 else f"× {times:.2g}"


def cell(runs: Sequence[Row]) -> str:
    """One run's score."""
    return f"{abs(score(runs[0])):.3f}" if runs else NOT_RUN


if __name__ == "__main__":
    main()
