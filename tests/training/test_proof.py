"""The proof passes sound models and refuses, by name, models that cannot be private."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2Model

from cloister.errors import PreflightError, RefusedError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.head_inputs import HeadInputs
from cloister.models.kept_states import KeptStates
from cloister.models.pooling import Pooling
from cloister.tasks.config import TaskConfig
from cloister.tasks.retrieval import Retrieval
from cloister.training import proof as proof_file
from cloister.training import proof_key
from cloister.training.gradients import clipped_gradient_sum, per_record_hooks
from cloister.training.numerics import check_pinned, pinned
from cloister.training.proof import Proof, prove, proven
from cloister.training.shapes import one_by_one
from cloister.training.workspace import Workspace, open_workspace
from tests.support.isolation import CONFIG, PLAN, random_units, wide_workspace
from tests.support.models import VOCABULARY, word_tokenizer

Bases = Callable[[str], Path]


@pytest.fixture
def workspace(bases: Bases) -> Workspace:
    return wide_workspace(bases("bert"), "sequence-classification")


def test_a_proof_leaves_the_network_as_it_was(workspace: Workspace) -> None:
    network = workspace.network
    before = {name: p.clone() for name, p in network.named_parameters()}
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    prove(workspace, PLAN, CONFIG)
    assert [name for name, p in network.named_parameters() if p.requires_grad] == trained
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_every_shape_is_tried_and_timed(workspace: Workspace) -> None:
    proof = prove(workspace, PLAN, CONFIG)
    assert {(length, rows) for length, rows, _ in proof.seconds} == {
        (shape.length, shape.rows) for shape in proof.shapes.all()
    }
    assert all(seconds > 0 for *_, seconds in proof.seconds)
    assert proof.peak_bytes > 2**20
    assert proof.shapes.threads == torch.get_num_threads()


def test_stated_lengths_are_tried_alone_and_have_a_key_of_their_own(workspace: Workspace) -> None:
    longest = workspace.task.max_length
    stated = replace(CONFIG, padded_lengths=(longest // 2, longest))
    proof = prove(workspace, PLAN, stated)
    assert [edge for edge, _ in proof.shapes.counts] == [longest // 2, longest]
    assert not proof.shapes.one_by_one
    assert Proof.key_of(workspace, PLAN, stated) != Proof.key_of(workspace, PLAN, CONFIG)


def test_a_shape_that_cannot_be_computed_is_refused_before_any_round(
    workspace: Workspace,
) -> None:
    def too_large(_: nn.Module, arguments: tuple[object, ...], keywords: dict[str, Tensor]) -> None:
        if keywords["input_ids"].numel() > 200:
            raise torch.OutOfMemoryError("out of memory")

    workspace.network.backbone.register_forward_pre_hook(too_large, with_kwargs=True)
    with pytest.raises(PreflightError, match=r"records of \d+ tokens .*physical_batch_tokens"):
        prove(workspace, PLAN, CONFIG)


def test_deberta_s_shared_positions_are_refused_by_name(tmp_path: Path) -> None:
    """Query and key also project relative positions, which all records share."""
    config = DebertaV2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        position_biased_input=False,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
    )
    DebertaV2Model(config).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    lora = LoraConfig(train="both", top_layers=0, target_modules=("query_proj", "key_proj"))
    task = TaskConfig(max_length=32)
    opened = open_workspace(ModelConfig(base=str(tmp_path)), lora, task, ("a", "b"), 0)
    with pytest.raises(PreflightError, match=r"(query|key)_proj.*(called 2 times|rows for)"):
        prove(opened, PLAN, CONFIG)


class Twice(nn.Module):
    """A head that reads its features twice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        once: Tensor = self.inner(features)
        again: Tensor = self.inner(features.roll(1, dims=-1))
        return once + again


class Flattened(nn.Module):
    """A head that is given two rows for each record."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.inner(torch.cat([features, features]))
        return scores[: len(features)]


@pytest.mark.parametrize(
    ("trap", "words"),
    [
        (Twice, r"head\.inner is called 2 times"),
        (Flattened, r"head\.inner does not take the records"),
    ],
)
def test_modules_that_are_not_called_once_with_the_records_are_refused_by_name(
    workspace: Workspace, trap: type[nn.Module], words: str
) -> None:
    head = workspace.network.head
    assert head is not None
    workspace.network.head = trap(head)  # type: ignore[call-arg]
    renamed = {
        n.replace("head.", "head.inner.") if n.startswith("head.") else n: v
        for n, v in workspace.start.items()
    }
    moved = replace(workspace, start=type(workspace.start)(renamed))
    with pytest.raises(PreflightError, match=words):
        prove(moved, PLAN, CONFIG)


class Leaking(nn.Module):
    """A head in which other records change a score by about one rounding."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        # Of one coordinate: those of a normalized state come to zero together.
        leak = (100 * features.detach()[:, 0].sum()).sin()
        scores: Tensor = self.inner(features * (1 + 2**-22 * leak))
        return scores


def test_where_companions_matter_records_go_one_by_one(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """So little that a comparison with a tolerance passes it: bits tell."""
    head = workspace.network.head
    assert head is not None
    workspace.network.head = Leaking(head)
    renamed = {
        n.replace("head.", "head.inner.") if n.startswith("head.") else n: v
        for n, v in workspace.start.items()
    }
    moved = replace(workspace, start=type(workspace.start)(renamed))
    assert prove(moved, PLAN, CONFIG).one_by_one
    assert proof_file.ALONE in caplog.text


class ByRows(nn.Module):
    """A head whose kernel depends on the number of rows, as on GPUs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.inner(features * (1 + 2**-20 * len(features)))
        return scores


def test_where_row_counts_differ_those_that_agree_and_cost_least_are_left(
    workspace: Workspace,
) -> None:
    """Heads of up to 8 rows are padded to 8, and a mean has no kernel that depends on rows."""
    head = workspace.network.head
    assert head is not None
    usual = prove(workspace, PLAN, CONFIG).shapes.rows(8)  # of this machine's own kernels
    workspace.network.head = ByRows(head)
    renamed = {
        n.replace("head.", "head.inner.") if n.startswith("head.") else n: v
        for n, v in workspace.start.items()
    }
    moved = replace(workspace, start=type(workspace.start)(renamed))
    few = prove(moved, PLAN, replace(CONFIG, expected_batch_size=20)).shapes  # 4 at an edge
    assert few.rows(8) == tuple(rows for rows in usual if rows <= 8)
    assert len(few.rows(8)) > 1
    many = prove(moved, PLAN, replace(CONFIG, expected_batch_size=1280)).shapes  # 256 at an edge
    assert many.rows(8) == (usual[-1],)  # 8 passes of 32 rows, not 32 of 8
    assert not few.one_by_one
    assert not many.one_by_one


def test_the_key_names_all_that_a_proof_depends_on(workspace: Workspace, bases: Bases) -> None:
    key = Proof.key_of(workspace, PLAN, CONFIG)
    assert key == prove(workspace, PLAN, CONFIG).key
    other = wide_workspace(bases("bert"), "sequence-classification", dtype="bfloat16")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threads = Proof.key_of(workspace, PLAN, CONFIG)
    finally:
        torch.set_num_threads(before)
    pooling, workspace.network.pooling = workspace.network.pooling, Pooling("pooler", False)
    pooled = Proof.key_of(workspace, PLAN, CONFIG)  # a kernel of its own
    workspace.network.pooling = pooling
    assert workspace.network.head_inputs is None
    workspace.network.head_inputs = HeadInputs((), KeptStates(), 0.0)
    cached = Proof.key_of(workspace, PLAN, CONFIG)  # computed with other row counts than the head
    workspace.network.head_inputs = None
    code = type("Other", (type(workspace.task),), {"origin": ("package", "2.0", "{}")})
    plugged = replace(workspace, task=code(**vars(workspace.task)))
    keys = {
        key,
        threads,
        Proof.key_of(replace(workspace, base_sha256="0" * 64), PLAN, CONFIG),
        Proof.key_of(other, PLAN, CONFIG),
        pooled,
        cached,
        Proof.key_of(plugged, PLAN, CONFIG),
        Proof.key_of(workspace, replace(PLAN, max_grad_norm=2.0), CONFIG),
        Proof.key_of(workspace, PLAN, replace(CONFIG, physical_batch_tokens=128)),
        Proof.key_of(workspace, PLAN, replace(CONFIG, probe_rounds=1)),
        Proof.key_of(workspace, PLAN, CONFIG, max_adapter_value=3.0),
        Proof.key_of(workspace, PLAN, replace(CONFIG, expected_batch_size=20)),
    }
    assert len(keys) == 12
    # What a round does not depend on changes nothing.
    assert Proof.key_of(workspace, replace(PLAN, noise_multiplier=2.0), CONFIG) == key
    assert Proof.key_of(workspace, PLAN, replace(CONFIG, expected_batch_size=310)) == key


def test_a_proof_is_of_these_passages(workspace: Workspace) -> None:
    """Their vectors are a layer of the network, and the temperature scales its gradients."""
    tokenizer = word_tokenizer()
    task = Retrieval(("a", "b"), tokenizer, 16, 0, ("fever", "rash"))
    others = [task, replace(task, passages=("fever", "cough")), replace(task, temperature=0.5)]
    keys = {Proof.key_of(replace(workspace, task=one), PLAN, CONFIG) for one in others}
    assert len(keys) == 3


def test_the_key_tells_versions_and_kernels_apart(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proof from before an upgrade, or from another processor, is of other kernels or checks."""
    key = Proof.key_of(workspace, PLAN, CONFIG)
    keys = {key}
    with monkeypatch.context() as patch:
        patch.setenv("MKL_CBWR", "COMPATIBLE")
        keys.add(Proof.key_of(workspace, PLAN, CONFIG))
    for name in ("cloister", "torch", "tokenizers"):
        with monkeypatch.context() as patch:
            patch.setattr(proof_key, "version", lambda of, name=name: f"9.{of == name}")
            keys.add(Proof.key_of(workspace, PLAN, CONFIG))
    with monkeypatch.context() as patch:
        patch.setattr(proof_key, "_processor", lambda: "another")
        keys.add(Proof.key_of(workspace, PLAN, CONFIG))
    assert len(keys) == 6
    assert Proof.key_of(workspace, PLAN, CONFIG) == key


def test_a_proof_is_made_once_for_equal_values(
    workspace: Workspace, bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Workspace] = []
    proofs: dict[str, Proof] = {}
    real = proof_file.prove

    def counting(opened: Workspace, *rest: object, **more: object) -> Proof:
        made.append(opened)
        return real(opened, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(proof_file, "_proofs", proofs)
    monkeypatch.setattr(proof_file, "prove", counting)
    again = wide_workspace(bases("bert"), "sequence-classification")
    assert proven(workspace, PLAN, CONFIG) == proven(again, PLAN, CONFIG)
    assert len(made) == 1


def test_threads_that_changed_since_the_proof_are_refused(workspace: Workspace) -> None:
    shapes = replace(one_by_one(40), threads=torch.get_num_threads() + 1)
    units = random_units(workspace, 2, seed=0)
    with per_record_hooks(workspace.network), pytest.raises(RefusedError, match="get_num_threads"):
        clipped_gradient_sum(workspace.network, workspace.task, units, 1.0, shapes)


@pytest.mark.parametrize(
    "change",
    [
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", True),
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", True),
        lambda: setattr(torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", True),
        lambda: torch.use_deterministic_algorithms(False),
        lambda: torch.set_autocast_enabled("cpu", True),
    ],
    ids=[
        "precision",
        "cudnn tf32",
        "benchmark",
        "tf32",
        "bf16",
        "fp16",
        "deterministic",
        "autocast",
    ],
)
def test_arithmetic_that_changed_since_it_was_pinned_is_refused(
    workspace: Workspace, change: Callable[[], object]
) -> None:
    units = random_units(workspace, 2, seed=0)
    try:
        with per_record_hooks(workspace.network):
            change()
            with pytest.raises(RefusedError, match="when private training was set up"):
                clipped_gradient_sum(workspace.network, workspace.task, units, 1.0, one_by_one(40))
    finally:
        torch.set_autocast_enabled("cpu", False)


def test_what_was_set_before_comes_back() -> None:
    def found() -> tuple[object, ...]:
        return (
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
            torch._C._get_cublas_allow_bf16_reduced_precision_reduction(),
            torch._C._get_cublas_allow_fp16_reduced_precision_reduction(),
        )

    before = found()
    with pinned():
        check_pinned()
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        assert not torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    assert found() == before


def test_precision_set_by_the_new_interface_is_refused() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    try:
        with pytest.raises(RefusedError, match="fp32_precision"), pinned():
            check_pinned()
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]
