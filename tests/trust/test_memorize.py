"""`cloister model memorize`: ranks, bounds, continued replies, and where reports may lie."""

import json
import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import cloister as cl
from cloister.cli.main import run
from cloister.data.canaries import Canaries, Canary, plant
from cloister.data.records import ChatRecord, Message
from cloister.errors import RefusedError, UsageError
from cloister.models.network import trained_parameters
from cloister.recipe import parse_recipe
from cloister.server.run_directory import RunDirectory
from cloister.serving.model import Model
from cloister.simulation.run import simulate
from cloister.tasks.config import TaskConfig
from cloister.training.gradients import plain_gradient_sum
from cloister.training.units import singles
from cloister.trust.memorize import exposure
from cloister.trust.memorize.exposure import CanaryRank, other_numbers, ranks
from cloister.trust.memorize.extraction import _continuations, _right, attempts, continued
from cloister.trust.memorize.measured import measure_canaries
from cloister.trust.memorize.promise import (
    STEP,
    chance_exposure,
    lower_bound,
    most_exposure,
    most_found,
    promise_of,
    promise_of_canary,
)
from cloister.trust.opening import open_run
from tests.support.released import exported
from tests.support.studies import small_recipe

CHAT = TaskConfig(kind="causal-lm", max_length=24)
TALK = ChatRecord(
    (
        Message("user", "fever and cough"),
        Message("assistant", "the patient has a mild rash and severe headache since monday"),
    )
)


@pytest.fixture
def chat(tmp_path: Path, llama: Path) -> Model:
    return open_run(exported(tmp_path / "adapter", llama, CHAT)).model


def canaries_of(count: int, kind: str = "text") -> Canaries:
    label = "a" if kind == "text" else None
    made = tuple(Canary(f"N{n}", f"{n:03d}", label, n % 2 == 0) for n in range(count))
    return Canaries(kind, 3, 1, made)  # type: ignore[arg-type]


def test_a_rank_counts_the_numbers_that_are_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the definition: log₂ of the numbers over the place; equal losses count against."""
    losses = [2.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]  # the secret's first
    monkeypatch.setattr(exposure, "losses", lambda model, records: losses)
    (found,) = ranks(None, canaries_of(1).canaries, [f"9{n:02d}" for n in range(7)])  # type: ignore[arg-type]
    assert found.rank == 3
    assert found.exposure == math.log2(8 / 3)
    assert found.surplus == pytest.approx((4.0 - 2.0) / np.std(losses[1:]))


def test_a_loss_that_is_no_number_shows_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for losses, rank in (([math.nan, 1.0, 2.0], 3), ([1.0, math.nan, 2.0], 2)):
        monkeypatch.setattr(exposure, "losses", lambda model, records, found=losses: found)
        (found,) = ranks(None, canaries_of(1).canaries, ["901", "902"])  # type: ignore[arg-type]
        assert found.rank == rank


def test_epsilon_of_one_unit_bounds_no_canary_of_several() -> None:
    record = parse_recipe("", ["privacy.unit=record"])
    person = parse_recipe("", ["privacy.unit=person", "data.person=person"])
    assert promise_of_canary(record, 1) == promise_of(record) is not None
    assert promise_of_canary(record, 2) is None
    assert promise_of_canary(person, 2) == promise_of(person) is not None


def test_a_model_that_knows_nothing_gives_uniform_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    monkeypatch.setattr(exposure, "losses", lambda model, records: rng.random(len(records)))
    found = measure_canaries(None, canaries_of(600), 200, 0, None)  # type: ignore[arg-type]
    assert found.planted is not None
    assert found.planted.low < found.chance < found.planted.high
    for one in found.shares:
        for side in (one.planted, one.kept_out):
            assert side is not None
            assert abs(side.value - one.share) < 4 * (one.share / 300) ** 0.5


def test_other_numbers_differ_and_fit_their_space() -> None:
    assert other_numbers(50, 9, 1) == other_numbers(50, 9, 1)
    assert len(set(other_numbers(50, 9, 1))) == 50
    assert len(other_numbers(1000, 1, 0)) == 5  # half of ten


def test_chance_is_the_mean_over_all_places() -> None:
    assert chance_exposure(1) == 0.5  # of two places, 1 bit and 0 bits
    assert chance_exposure(100_000) == pytest.approx(1 / math.log(2), abs=1e-3)


def test_the_promise_bounds_what_can_be_found() -> None:
    """By e^ε · share + δ at the promised ε, and by nothing less than chance."""
    recipe = parse_recipe("", ["privacy.epsilon=1.0"])
    promise = promise_of(recipe)
    assert promise is not None
    for share in (0.001, 0.01, 0.1):
        bound = most_found(promise, share)
        assert share <= bound <= math.exp(promise.stated.epsilon) * share + promise.stated.delta
    # ∫ min(1, e^ε 2⁻ˣ + δ) dx is at most (ε + 1) / ln 2 + δ log₂ N.
    epsilon, delta = promise.stated.epsilon, promise.stated.delta
    most = most_exposure(promise, 1000)
    limit = (epsilon + 1) / math.log(2) + delta * math.log2(1001) + 0.125
    assert chance_exposure(1000) < most <= limit
    loose = promise_of(parse_recipe("", ["privacy.epsilon=20.0"]))
    assert loose is not None
    assert most < most_exposure(loose, 1000) <= math.log2(1001)
    assert promise_of(parse_recipe("", ["privacy.enabled=false"])) is None


def test_the_bound_on_the_mean_exposure_is_above_the_integral() -> None:
    """A sum of each step's smaller end would state less than ε allows."""
    promise = promise_of(parse_recipe("", ["privacy.epsilon=2.0"]))
    assert promise is not None
    bits = (np.arange(512) + 0.5) / 512 * 8  # midpoints of 8 bits
    integral = float(np.mean([most_found(promise, 2.0**-x) for x in bits[::4]])) * 8
    assert integral < most_exposure(promise, 255) < integral + STEP


def test_canaries_bound_epsilon_from_below_only_where_they_are_told_apart() -> None:
    promise = promise_of(parse_recipe("", ["privacy.epsilon=1.0"]))
    assert promise is not None
    rng = np.random.default_rng(0)
    planted = rng.random(400) < 0.5
    known = [CanaryRank("a", bool(one), 1, 9, 9.0 * one) for one in planted]
    unknown = [CanaryRank("a", bool(one), 1, 9, float(rng.random())) for one in planted]
    told = lower_bound(promise, known)
    assert told.epsilon == told.most > 2.0  # a claim of 1 is refuted
    assert lower_bound(promise, unknown).epsilon == 0.0


def memorized(model: Model, records: list[ChatRecord], steps: int = 60) -> None:
    """Trains the adapter on records until it knows them."""
    network, task = model.workspace.network, model.workspace.task
    model.workspace.train_names(frozenset(model.workspace.start))
    parameters = [p for _, p in trained_parameters(network)]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    units = singles(model.workspace.encode(records))
    for _ in range(steps):
        for parameter, gradient in zip(
            parameters, plain_gradient_sum(network, task, units, 512), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()


def test_a_memorized_reply_is_continued_and_others_are_not(chat: Model) -> None:
    other = ChatRecord(
        (Message("user", "rash"), Message("assistant", "no fever and no cough since monday"))
    )
    asked = attempts(
        chat, [TALK, other, ChatRecord((TALK.messages[0], Message("assistant", "no")))], 4
    )
    assert [one.record for one in asked] == [0, 1]  # the third reply is too short
    encoded = chat.workspace.encode([TALK])[0]
    assert asked[0].given + asked[0].wanted == encoded.input_ids[: len(asked[0].given) + 4]
    before = continued(chat, asked, 2, 0)
    assert not any(one.is_greedy for one in before)
    assert before == continued(chat, asked, 2, 0)
    memorized(chat, [TALK])
    trained, unseen = continued(chat, asked, 8, 0)
    assert trained.is_greedy
    assert not unseen.is_greedy


def test_samples_are_drawn_at_temperature_1(chat: Model) -> None:
    """Against the softmax of what the network says next; the base's own settings do not count."""
    (one,) = attempts(chat, [TALK], 1)
    chat.workspace.network.base.generation_config.top_k = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = torch.tensor(_continuations(chat, one, 2000))[:, 0]
    with torch.no_grad():
        logits = chat.workspace.network.backbone(input_ids=torch.tensor([one.given])).logits
    wanted = logits[0, -1].softmax(dim=-1)
    found = torch.bincount(drawn, minlength=len(wanted)) / 2000
    assert ((found - wanted).abs() < 4.5 * (wanted / 2000).sqrt() + 1e-3).all()


def test_tokens_count_until_the_first_other_one() -> None:
    assert [_right(made, (1, 2, 3)) for made in ((1, 2, 3), (1, 9, 3), (), (1, 2))] == [3, 1, 0, 2]


def test_a_text_is_continued_from_its_second_token_on(chat: Model) -> None:
    text = ChatRecord((), text="chest pain at rest")
    (one,) = attempts(chat, [text], 3)
    assert one.given
    assert len(one.wanted) == 3


def chats(path: Path, count: int, word: str) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{word} {'fever ' * (n + 1)}"},
                {"role": "assistant", "content": "the patient has a mild rash since monday"},
            ]
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def talked(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    """A finished chat study; its private records lie in `../study`."""
    place = tmp_path_factory.mktemp("talked")
    (place / "study").mkdir()
    train = chats(place / "study" / "train.jsonl", 12, "rash")
    test = chats(place / "study" / "test.jsonl", 4, "knee")
    recipe = parse_recipe(
        "",
        [
            f"model.base='{llama}'",
            "task.kind=causal-lm",
            "task.max_length=24",
            f"data.train='{train}'",
            f"data.test='{test}'",
            "data.sites=1",
            "data.partition=iid",
            "data.public_records=12",
            "training.expected_batch_size=4",
            "lora.train=both",
            "lora.top_layers=0",
            "federation.num_rounds=1",
            "tracking.tensorboard=false",
        ],
    )
    directory = RunDirectory.create(place / "run", recipe)
    simulate(recipe, directory)
    return directory.path


def test_private_replies_stay_where_they_are(
    talked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = talked.parent / "study" / "train.jsonl"
    asked = ["model", "memorize", str(talked), "--records", str(train), "--tokens", "3"]
    assert run([*asked, "--out", str(tmp_path / "away")]) == 4
    assert "the report must stay with the records" in capsys.readouterr().err
    copy = tmp_path / "copy.jsonl"
    copy.write_text(train.read_text().splitlines()[0] + "\n")
    with pytest.raises(RefusedError):
        cl.measure_memorization(talked, tmp_path / "away", records=copy, tokens=3)
    assert not (tmp_path / "away").exists()
    inside = train.parent / "memorized"
    assert run([*asked, "--out", str(inside), "--samples", "2", "--against", str(talked)]) == 0
    assert "keep it where these records are" in capsys.readouterr().err
    document = json.loads((inside / "memorization.json").read_text())
    names = [(row["model"], row["records"]) for row in document["extraction"]]
    assert names == [
        (who, which)
        for who in ("model", "base without the adapter", "run")
        for which in ("given", "public test")
    ]
    assert all(row["sampled"] is not None for row in document["extraction"])
    assert document["private"] is not None
    page = (inside / "index.html").read_text()
    assert "keep it where they are" in page
    assert (inside / "index.html").stat().st_mode & 0o077 == 0


def test_a_study_with_canaries_is_measured_from_plant_to_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_recipe(tmp_path / "study")
    planted, secrets = tmp_path / "study" / "planted.jsonl", tmp_path / "canaries.json"
    source = tmp_path / "study" / "train.jsonl"
    plant(source, planted, secrets, count=12, columns={"site": "site"}, random=Random(2))
    more = [f"data.train='{planted}'", "federation.num_rounds=1", "training.local_steps=1"]
    recipe = small_recipe(tmp_path / "study", *more)
    directory = RunDirectory.create(tmp_path / "run", recipe)
    simulate(recipe, directory)
    asked = ["model", "memorize", str(tmp_path / "run"), "--canaries", str(secrets)]
    assert run([*asked, "--out", str(tmp_path / "out"), "--others", "40"]) == 0
    assert "bits planted" in capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "memorization.json").read_text())
    found = document["canaries"]["model"]
    assert sum(found["counts"]) == 12
    assert found["others"] == 40
    assert document["promise"]["epsilon"] == pytest.approx(8.0, abs=0.01)
    assert [one["most"] >= one["share"] for one in found["shares"]] == [True] * 3
    assert "one record" in (tmp_path / "out" / "index.html").read_text()
    # Of an adapter alone no promise is known.
    alone = cl.measure_memorization(
        tmp_path / "run" / "adapter", tmp_path / "two", canaries=secrets, others=10
    )
    assert alone.canaries["model"].most_exposure is not None
    other = tmp_path / "others.json"
    plant(source, tmp_path / "o.jsonl", other, count=12, random=Random(3))
    with pytest.raises(UsageError, match="none of the planted canaries"):
        cl.measure_memorization(tmp_path / "run", tmp_path / "three", canaries=other)


def test_what_does_not_apply_is_refused(finished: Path, talked: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "canaries.json"
    source = finished.parent / "study" / "train.jsonl"
    plant(source, tmp_path / "p.jsonl", secrets, count=4, random=Random(0))
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="nothing to measure"):
        cl.measure_memorization(finished, out)
    with pytest.raises(UsageError, match="writes no text"):
        cl.measure_memorization(finished, out, records=source)
    with pytest.raises(UsageError, match="canaries are text"):
        cl.measure_memorization(talked, out, canaries=secrets)
    inside = talked.parent / "study" / "out"
    train = talked.parent / "study" / "train.jsonl"
    with pytest.raises(UsageError, match="no reply of --records has this many tokens"):
        cl.measure_memorization(talked, inside, records=train, tokens=20)
    assert not out.exists()
    assert not inside.exists()
