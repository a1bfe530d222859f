"""Embeddings that move up a record's own loss: its slow twin, its bits alone and among others."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cloister.audit import audited_site
from cloister.audit.clipping_conformance import clipping_checks
from cloister.client.policy_file import EXAMPLE, parse_policy
from cloister.client.site_file import SiteConfig, SiteFile
from cloister.data.records import ChatRecord, Message, Record, TextRecord, TokenRecord
from cloister.deployment.site import opened_site
from cloister.errors import PreflightError, RecipeError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.privacy import mechanism
from cloister.privacy.clipping import MARGIN, grid_of
from cloister.privacy.entropy import OsEntropy
from cloister.privacy.noise import add_noise
from cloister.privacy.plan import Plan
from cloister.privacy.products import whole
from cloister.recipe import parse_recipe
from cloister.simulation import study
from cloister.tasks.config import TaskConfig
from cloister.training import adversary, worker
from cloister.training.config import TrainingConfig
from cloister.training.gradients import (
    clipped_gradient_sum,
    opacus_hooks,
    per_record_hooks,
    plain_gradient_sum,
    record_gradients,
)
from cloister.training.joined_processes import join
from cloister.training.local import local_update
from cloister.training.passes import passes
from cloister.training.preflight import preflight
from cloister.training.proof import Proof, prove
from cloister.training.record_losses import record_losses, trained_losses
from cloister.training.shapes import candidates
from cloister.training.team import Opening
from cloister.training.units import singles
from cloister.training.workspace import Workspace, open_workspace
from tests.reference.adversarial import adversarial_clipped_sum
from tests.support.isolation import (
    BOUND,
    CONFIG,
    PLAN,
    move,
    movement,
    random_units,
    summing,
    wide_workspace,
)
from tests.support.studies import small_recipe

RADIUS = 0.1
SHAPES = candidates(32, 512)
LABELS = ("a", "b")
TEXTS: list[Record] = [
    TextRecord("chest pain at rest", "a"),
    TextRecord("the patient has a mild rash and severe headache since monday", "b"),
    TextRecord("no fever and no cough", "b"),
]
CHATS: list[Record] = [
    ChatRecord((Message("user", "fever and cough"), Message("assistant", "severe"))),
    ChatRecord((Message("user", "rash"), Message("assistant", "itchy rash since monday"))),
]
WORDS: list[Record] = [
    TokenRecord(("severe", "chest", "pain"), ("O", "B-X", "I-X")),
    TokenRecord(("no", "fever", "and", "no", "cough"), ("O", "B-X", "O", "O", "B-X")),
]
KINDS = {
    "sequence-classification": (LABELS, TEXTS),
    "token-classification": (("X",), WORDS),
    "causal-lm": ((), CHATS),
}


def opened(base: Path, kind: str = "sequence-classification", **options: object) -> Workspace:
    """A workspace whose embeddings move, away from its start."""
    lora = options.pop("lora", {})
    dtype = options.pop("dtype", "float32")
    assert isinstance(lora, dict)
    workspace = open_workspace(
        ModelConfig(base=str(base), dtype=dtype),  # type: ignore[arg-type]
        LoraConfig(**({"train": "both", "top_layers": 0, "r": 2} | lora)),
        TaskConfig(kind=kind, max_length=32),  # type: ignore[arg-type]
        KINDS[kind][0],
        0,
        **({"adversarial_radius": RADIUS} | options),  # type: ignore[arg-type]
    )
    move(workspace, 0.3)
    return workspace


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "sequence-classification"),
        ("bert", "token-classification"),
        ("gpt2", "causal-lm"),
        ("llama", "causal-lm"),
    ],
)
def test_the_clipped_sum_is_that_of_each_record_moved_alone(
    request: pytest.FixtureRequest, family: str, kind: str
) -> None:
    workspace = opened(request.getfixturevalue(family), kind)
    network, task = workspace.network, workspace.task
    examples = workspace.encode(KINDS[kind][1])
    expected, norms = adversarial_clipped_sum(network, task, examples, 0.5 * (1 - MARGIN), RADIUS)
    with per_record_hooks(network):
        total = clipped_gradient_sum(network, task, singles(examples), 0.5, SHAPES)
    found = add_noise(total, 0.0, OsEntropy()).tensors
    for mine, slow in zip(found, expected, strict=True):
        # As in test_gradients; a move of another rounding changes a gradient by as little.
        assert float((mine.double() - slow).norm()) <= 2e-5 * norms
    network.adversarial_radius = 0.0
    with per_record_hooks(network):
        still = clipped_gradient_sum(network, task, singles(examples), 0.5, SHAPES)
    apart = sum(
        float((a.double() - b.double()).square().sum())
        for a, b in zip(total.tensors, still.tensors, strict=True)
    )
    assert apart**0.5 * total.grid > 1e-3 * norms  # the move is not nothing


def test_a_move_has_its_length_and_raises_the_loss(bert: Path) -> None:
    workspace = opened(bert)
    network, task = workspace.network, workspace.task
    batch = task.collate(workspace.encode(TEXTS))
    moves = adversary._moves(
        network, batch.attention_mask, lambda: record_losses(network, task, batch)
    )
    with torch.no_grad():
        embedded = network.backbone.get_input_embeddings()(batch.input_ids)  # type: ignore[operator]
    is_token = batch.attention_mask.bool()[:, :, None]
    lengths = (embedded * is_token).flatten(1).norm(dim=1)
    assert torch.allclose(moves.flatten(1).norm(dim=1), RADIUS * lengths, rtol=1e-5)
    assert not moves[~is_token.expand_as(moves)].any()  # padding stays
    before = record_losses(network, task, batch)
    assert (trained_losses(network, task, batch) > before).all()
    assert torch.equal(record_losses(network, task, batch), before)  # nothing is left behind


def test_a_record_without_a_gradient_stays_where_it_is(bert: Path) -> None:
    """As at the start of a study, where a head of zeros makes all inputs alike."""
    workspace = opened(bert)
    with torch.no_grad():
        for name, parameter in trained_parameters(workspace.network):
            if name.startswith("head."):
                parameter.zero_()
    batch = workspace.task.collate(workspace.encode(TEXTS))
    found = trained_losses(workspace.network, workspace.task, batch)
    assert torch.equal(found, record_losses(workspace.network, workspace.task, batch))


def test_steep_and_flat_losses_move_records_equally(bert: Path) -> None:
    """Squares of a gradient of 10⁻²⁵ vanish in float32, and those of 10²⁵ overflow."""
    workspace = opened(bert)
    network, task = workspace.network, workspace.task
    batch = task.collate(workspace.encode(TEXTS))

    def moves(factor: float) -> Tensor:
        losses = lambda: record_losses(network, task, batch) * factor  # noqa: E731
        return adversary._moves(network, batch.attention_mask, losses)

    assert torch.allclose(moves(1e-25), moves(1.0), atol=1e-6)
    assert torch.allclose(moves(1e25), moves(1.0), atol=1e-6)


def test_a_record_whose_gradient_is_not_finite_contributes_zero(bert: Path) -> None:
    workspace = opened(bert)
    one, other, _ = workspace.encode(TEXTS)

    class Poisoned(type(workspace.task)):  # type: ignore[misc]
        def record_losses(self, logits: Tensor, batch: object) -> Tensor:
            losses: Tensor = super().record_losses(logits, batch)
            is_long = torch.tensor([len(e.input_ids) > 8 for e in batch.examples])  # type: ignore[attr-defined]
            is_long = torch.nn.functional.pad(is_long, (0, len(losses) - len(is_long)))
            return torch.where(is_long, losses * float("inf"), losses)

    task = Poisoned(**vars(workspace.task))
    with per_record_hooks(workspace.network):
        both, alone = (
            clipped_gradient_sum(workspace.network, task, singles(each), 0.5, SHAPES)
            for each in ([one, other], [one])
        )
    for mine, expected in zip(both.tensors, alone.tensors, strict=True):
        assert torch.equal(mine, expected)


def test_training_against_moves_makes_them_harmless(bert: Path) -> None:
    """What it is for: where all of the adapters train, a move no longer raises the loss much."""

    def loss_of_moves(radius: float) -> float:
        workspace = opened(bert, adversarial_radius=radius)
        network, task = workspace.network, workspace.task
        parameters = [p for _, p in trained_parameters(network)]
        optimizer = torch.optim.Adam(parameters, lr=0.02)
        units = singles(workspace.encode(TEXTS))
        for _ in range(25):
            gradients = plain_gradient_sum(network, task, units, 512)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        network.adversarial_radius = 2 * RADIUS
        losses = trained_losses(network, task, task.collate([unit[0] for unit in units]))
        return float(losses.detach().mean())

    assert loss_of_moves(2 * RADIUS) < 0.5 * loss_of_moves(0.0)


def test_a_record_whose_loss_is_constant_ends_no_round(bert: Path) -> None:
    """A plug-in may compute it so; an error of the study would tell that the record is there."""
    workspace = opened(bert)
    one, other, _ = workspace.encode(TEXTS)

    class Constant(type(workspace.task)):  # type: ignore[misc]
        def record_losses(self, logits: Tensor, batch: object) -> Tensor:
            if any(len(example.input_ids) > 8 for example in batch.examples):  # type: ignore[attr-defined]
                return torch.zeros(len(logits))
            losses: Tensor = super().record_losses(logits, batch)
            return losses

    task = Constant(**vars(workspace.task))
    with per_record_hooks(workspace.network):
        both, alone = (
            clipped_gradient_sum(workspace.network, task, singles(each), 0.5, SHAPES)
            for each in ([one, other], [one])
        )
    for mine, expected in zip(both.tensors, alone.tensors, strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("again", [False, True])
def test_own_layers_and_opacus_give_the_same_bits(
    request: pytest.FixtureRequest, family: str, again: bool
) -> None:
    """With activations that are computed again too: the first pass is seen by neither."""
    workspace = opened(request.getfixturevalue(family), gradient_checkpointing=again)
    network, task = workspace.network, workspace.task
    parameters = [p for _, p in trained_parameters(network)]
    units = singles(workspace.encode(TEXTS))
    found: list[list[Tensor]] = []
    for hooks in (per_record_hooks, opacus_hooks):
        with hooks(network):
            found.append(
                [
                    whole(gradient)
                    for group in passes(units, SHAPES)
                    for gradient in record_gradients(network, task, group, parameters)
                ]
            )
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert all(p.requires_grad and p.grad is None for p in parameters)


def test_without_privacy_the_same_losses_train(bert: Path) -> None:
    workspace = opened(bert)
    units = singles(workspace.encode(TEXTS))
    with per_record_hooks(workspace.network):
        clipped = clipped_gradient_sum(workspace.network, workspace.task, units, 100.0, SHAPES)
    plain = plain_gradient_sum(workspace.network, workspace.task, units, 64)
    for one, other in zip(add_noise(clipped, 0.0, OsEntropy()).tensors, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "kind", "dtype"),
    [
        ("bert", "sequence-classification", "float32"),
        pytest.param("gpt2", "causal-lm", "float32", marks=pytest.mark.nightly),
        pytest.param("llama", "causal-lm", "float32", marks=pytest.mark.nightly),
        pytest.param("llama", "causal-lm", "bfloat16", marks=pytest.mark.nightly),
        pytest.param("bert", "token-classification", "float32", marks=pytest.mark.nightly),
        pytest.param("bert", "retrieval", "float32", marks=pytest.mark.nightly),
    ],
)
def test_companions_change_no_bit_of_a_moved_record(
    bases: Callable[[str], Path], family: str, kind: str, dtype: str
) -> None:
    """The machine's proof holds, batches go together, and removing a unit moves no other."""
    workspace = wide_workspace(bases(family), kind, dtype=dtype)
    workspace.network.adversarial_radius = RADIUS
    proof = prove(workspace, PLAN, CONFIG)
    assert not proof.one_by_one
    assert any(len(rows) > 1 for _, rows in proof.shapes.counts)
    units = random_units(workspace, 16, seed=0, most=3)
    others, most = movement(summing(workspace, proof.shapes), units, (0, 7))
    assert others == 0
    steps = BOUND / grid_of(BOUND)
    assert 0.5 * steps < most <= steps


@pytest.mark.nightly
def test_two_processes_move_records_as_one_does(bert: Path) -> None:
    workspace = opened(bert, processes=2, device="cpu")
    team = workspace.team
    assert team is not None
    units = random_units(workspace, 12, seed=1, most=2, full=False)
    try:
        join(workspace, PLAN, CONFIG, SHAPES, 100.0)
        workspace.train_names(frozenset(workspace.start))
        with per_record_hooks(workspace.network):
            given = (workspace.network, workspace.task, units, 0.5, SHAPES)
            alone, together = clipped_gradient_sum(*given), team.clipped_sum(*given)
    finally:
        team.close()
    for one, other in zip(alone.tensors, together.tensors, strict=True):
        assert torch.equal(one, other)


# --- a broken move is seen ----------------------------------------------------------------------


def over_the_batch(rows: Tensor) -> Tensor:
    """One length for all records, which so move each other."""
    return rows.square().sum().sqrt().expand(len(rows))


@pytest.fixture
def coupled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adversary, "_lengths", over_the_batch)


@pytest.mark.usefixtures("coupled")
def test_a_move_of_the_whole_batch_s_length_is_refused_before_training(bert: Path) -> None:
    workspace = opened(bert)
    with pytest.raises(PreflightError, match="among others is off"):
        preflight(workspace.network, workspace.task, workspace.encode(TEXTS))


@pytest.mark.usefixtures("coupled")
def test_a_move_of_the_whole_batch_s_length_fails_conformance(bert: Path) -> None:
    workspace = opened(bert)
    units = random_units(workspace, 6, seed=3, full=False)
    checks = {c.name: c for c in clipping_checks(workspace, units, PLAN, SHAPES)}
    assert checks["companions"].refuted


def test_a_move_of_its_own_length_passes_conformance(bert: Path) -> None:
    workspace = opened(bert)
    plan = replace(PLAN, max_grad_norm=1.0)
    units = random_units(workspace, 6, seed=3, full=False)
    shapes = prove(workspace, plan, replace(CONFIG, physical_batch_tokens=64)).shapes
    assert not [c for c in clipping_checks(workspace, units, plan, shapes) if c.refuted]


def test_cached_states_of_frozen_layers_are_refused_by_name(bert: Path) -> None:
    """They are of embeddings that stayed; `open_workspace` caches none."""
    kept = opened(bert, lora={"top_layers": 1}, adversarial_radius=None, frozen_cache_gib=0.1)
    assert kept.network.prefix is not None
    kept.network.adversarial_radius = RADIUS
    with pytest.raises(PreflightError, match=r"frozen_cache_gib = 0"):
        preflight(kept.network, kept.task, kept.encode(TEXTS))
    assert opened(bert, lora={"top_layers": 1}, frozen_cache_gib=0.1).network.prefix is None


def test_a_base_that_reads_no_embeddings_is_refused_by_name(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(bert)
    other = torch.nn.Embedding(1, 1)
    monkeypatch.setattr(workspace.network.backbone, "get_input_embeddings", lambda: other)
    with pytest.raises(PreflightError, match=r"adversarial_radius.*called their layer 0 times"):
        preflight(workspace.network, workspace.task, workspace.encode(TEXTS))


@pytest.mark.parametrize("lora", [{"train": "none"}, {"top_layers": 1}, {"method": "prompt"}])
def test_a_probe_top_layers_and_prompts_pass_the_proof(
    bert: Path, gpt2: Path, lora: dict[str, object]
) -> None:
    chat = "method" in lora
    if chat:
        lora = {"method": "prompt", "tokens": 3}
    workspace = opened(
        gpt2 if chat else bert, "causal-lm" if chat else "sequence-classification", lora=lora
    )
    preflight(workspace.network, workspace.task, workspace.encode(CHATS if chat else TEXTS))


# --- the guarantee and the recipe ---------------------------------------------------------------


@pytest.mark.parametrize("units", [1, 12])
def test_neighbours_differ_by_at_most_the_clip(
    bert: Path, units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noised moves by the bound when a record comes, as without adversarial training."""
    bound, batch, rate = 0.1, 7, 2.0
    plan = Plan(
        public_records=70,
        expected_batch_size=batch,
        local_steps=1,
        num_rounds=3,
        noise_multiplier=1.0,
        max_grad_norm=bound,
        max_update_norm=1e6,
        delta=1e-5,
    )
    training = TrainingConfig(
        expected_batch_size=batch,
        learning_rate=rate,
        schedule="constant",
        adversarial_radius=RADIUS,
    )
    monkeypatch.setattr(mechanism, "poisson_sample", lambda count, rate, entropy: np.arange(count))
    clean = mechanism.add_noise
    monkeypatch.setattr(mechanism, "add_noise", lambda total, noise, e: clean(total, 0.0, e))
    workspace = opened(bert)
    examples = [workspace.encode(TEXTS)[index * index % 3] for index in range(units)]

    def update(given: Sequence[object]) -> np.ndarray:  # type: ignore[type-arg]
        sent = local_update(
            workspace.network,
            workspace.task,
            singles(given),  # type: ignore[arg-type]
            workspace.start,
            plan,
            training,
            round_number=1,
            entropy=OsEntropy(),
        )
        return np.concatenate([sent[name].ravel() for name in sorted(sent)])

    apart = float(np.linalg.norm(update(examples) - update(examples[:-1])))
    assert 0.5 * rate * bound / batch < apart <= rate * bound / batch * (1 + 1e-5)


class OpenedError(Exception):
    """Ends what opens a workspace, with the radius that it is opened with."""


def test_every_party_trains_with_the_study_s_radius(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A party without it would train, prove or audit another function than was accepted."""

    def opened_with(*_: object, adversarial_radius: float | None = None, **__: object) -> None:
        raise OpenedError(adversarial_radius)

    for module in (audited_site, opened_site, worker, study):
        monkeypatch.setattr(module, "open_workspace", opened_with)
    recipe = small_recipe(tmp_path, "training.adversarial_radius=0.07")
    own = SiteConfig(name="a", data="a.jsonl", public_records=9, ledger="a.ledger")
    file = SiteFile(Path("site.toml"), own, parse_policy(EXAMPLE))
    opening = Opening(recipe.model, recipe.lora, recipe.task, (), 0, 0.0, None, False, 0.07)
    for party in (
        lambda: opened_site._loaded(file, recipe, "base"),
        lambda: worker._opened(opening),
        lambda: audited_site.audited_site(recipe, 4, 1),
        lambda: study._open(recipe),
    ):
        with pytest.raises(OpenedError) as found:
            party()
        assert found.value.args == (0.07,)


def test_a_proof_is_of_one_radius(bert: Path) -> None:
    workspace = opened(bert)
    keys = set()
    for radius in (0.0, 0.1, 0.2):
        workspace.network.adversarial_radius = radius
        keys.add(Proof.key_of(workspace, PLAN, CONFIG))
    assert len(keys) == 3


def test_the_radius_is_a_part_of_the_study_and_preferences_refuse_it() -> None:
    plain, adversarial = (
        parse_recipe("", assignments) for assignments in ([], ["training.adversarial_radius=0.05"])
    )
    assert plain.digest != adversarial.digest
    with pytest.raises(RecipeError, match=r"adversarial_radius.*dpo"):
        parse_recipe(
            "",
            [
                "training.adversarial_radius=0.05",
                "task.kind=causal-lm",
                "task.loss=dpo",
            ],
        )
    with pytest.raises(RecipeError, match=r"training.adversarial_radius: 0"):
        parse_recipe("", ["training.adversarial_radius=0"])
