"""Every task keeps the contract: a record's loss and gradient depend on that record alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, BertForTokenClassification, LlamaForCausalLM

from cloister.data.records import (
    POOLED,
    ChatRecord,
    ItemsRecord,
    LabelsRecord,
    Message,
    PairRecord,
    Record,
    ScoreRecord,
    TextRecord,
    TokenRecord,
)
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.network import trained_parameters
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.tasks.task import Batch, Example
from cloister.testing import check_task
from cloister.training.workspace import Workspace, open_workspace
from tests.support.models import tiny_bert, tiny_llama

MAX_LENGTH = 32

# Short, middling and long, so that padding and the number of targets differ a lot.
TEXTS = [
    TextRecord("fever", "a"),
    TextRecord("chest pain at rest since monday", "b"),
    TextRecord("the patient has a severe headache and a mild cough and no fever " * 4, "a"),
    TextRecord("rash itchy", "b"),
]
PAIRS = [
    PairRecord("fever", "a", text_b="no fever"),
    PairRecord("chest pain at rest", "b", text_b="the patient has chest pain since monday"),
    PairRecord("the patient has a severe headache " * 5, "a", text_b="no rash and a cough " * 5),
    PairRecord("rash itchy and mild and acute", "b", text_b="rash"),
]
SENTENCES = [
    TokenRecord(("fever",), ("B-X",)),
    TokenRecord(("the", "patient", "has", "chest", "pain"), ("O", "O", "O", "B-X", "I-X")),
    TokenRecord(("no", "rash", "and", "a", "cough") * 9, ("O", "B-X", "O", "O", "B-X") * 9),
    TokenRecord(("knee", "swollen"), ("O", "O")),
]
CHATS = [
    ChatRecord((Message("user", "fever"), Message("assistant", "rest"))),
    ChatRecord(
        (
            Message("user", "the patient has a rash"),
            Message("assistant", "itchy"),
            Message("user", "no"),
            Message("assistant", "mild and acute and severe since monday"),
        )
    ),
    ChatRecord((Message("assistant", "a mild cough at rest " * 9), Message("user", "no fever"))),
    ChatRecord((Message("system", "the patient"), Message("assistant", "no headache at rest"))),
]


SEVERAL = [
    LabelsRecord(record.text, labels)
    for record, labels in zip(TEXTS, (("a",), ("a", "b"), (), ("b",)), strict=True)
]
SCORED = [
    ScoreRecord(record.text, score)
    for record, score in zip(TEXTS, (0.0, 2.0, 3.0, 1.0), strict=True)
]
# Items whose ids are their words, so that the tokenizer of the records' words knows them.
SHELF = Path(__file__).parent / "items.jsonl"
HAD = [
    ItemsRecord(("fever", "cough")),
    ItemsRecord(("rash", "itchy", "fever")),
    ItemsRecord(("cough", "headache", "severe", "mild", "rash", "fever", "itchy", "acute")),
    ItemsRecord(("mild", "acute", "mild", "cough")),
]

PASSAGES = (("a", "the patient has a fever at rest"), ("b", "mild cough and no pain"))


@dataclass(frozen=True)
class Case:
    kind: TaskKind
    base: Callable[[Path], Path]
    labels: tuple[str, ...]
    records: Sequence[Record]
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def called(self) -> str:
        return " ".join([self.kind, *self.options])


CASES = [
    Case("sequence-classification", tiny_bert, ("a", "b"), TEXTS),
    Case("text-pairs", tiny_bert, ("a", "b"), PAIRS),
    Case("token-classification", tiny_bert, ("X",), SENTENCES),
    Case("causal-lm", tiny_llama, (), CHATS),
    Case("multi-label-classification", tiny_bert, ("a", "b"), SEVERAL),
    Case("scoring", tiny_bert, (), SCORED, {"score_range": (0.0, 3.0), "score_step": 1.0}),
    Case("retrieval", tiny_bert, (), TEXTS, {"passages": PASSAGES}),
    Case("recommendation", tiny_bert, (), HAD, {"items": str(SHELF), "last_items": 4}),
    Case("text-pairs", tiny_bert, ("a", "b"), PAIRS, {"encoder": "bi"}),
    Case("text-pairs", tiny_bert, ("a", "b"), PAIRS, {"encoder": "bi", "compare": "cosine"}),
]
WEIGHED = [
    replace(CASES[0], options={"class_weights": {"a": 3.0}}),
    replace(CASES[2], options={"class_weights": {"X": 0.2}}),
    replace(CASES[4], options={"class_weights": {"b": 5.0}}),
    replace(CASES[5], options={"score_range": (-1.5, 7.0)}),
]


@pytest.mark.parametrize("case", [*CASES, *WEIGHED], ids=lambda case: case.called)
def test_every_task_keeps_the_contract(case: Case) -> None:
    check_task(case.kind, case.records, labels=case.labels, **case.options)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.called)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, list[Example]]:
    case: Case = request.param
    folder = case.base(tmp_path_factory.mktemp("base"))
    workspace = open_workspace(
        ModelConfig(base=str(folder)),
        LoraConfig(train="both", top_layers=0),
        TaskConfig(kind=case.kind, max_length=MAX_LENGTH, **case.options),  # type: ignore[arg-type]
        case.labels,
        0,
    )
    # Adapters start at B = 0, where half of the gradients vanish: move them off that point.
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in trained_parameters(workspace.network):
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return workspace, workspace.encode(case.records)


Opened = tuple[Workspace, list[Example]]


def losses(workspace: Workspace, batch: Batch) -> Tensor:
    return workspace.task.record_losses(workspace.network(**workspace.network.inputs(batch)), batch)


def gradient(workspace: Workspace, group: Sequence[Example], index: int) -> Tensor:
    """The gradient of one record's loss within a batch, all parameters in one vector."""
    loss = losses(workspace, workspace.task.collate(group))[index]
    parameters = [p for _, p in trained_parameters(workspace.network)]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


# float32 forward passes of a 16-wide model in another padded shape sum in another order: a few
# hundred additions at 2⁻²⁴ each. The trap below moves losses by more than 10 %.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def test_a_records_loss_is_that_of_the_record_alone(opened: Opened) -> None:
    workspace, examples = opened
    together = losses(workspace, workspace.task.collate(examples))
    alone = torch.cat([losses(workspace, workspace.task.collate([e])) for e in examples])
    torch.testing.assert_close(together, alone, **TOLERANCE)
    # The comparison would be empty if all losses were alike.
    assert alone.max() - alone.min() > 0.01


@pytest.mark.parametrize("companions", [(1,), (2,), (1, 2, 3), (0, 0)])
def test_a_records_gradient_is_the_same_with_any_companions(
    opened: Opened, companions: tuple[int, ...]
) -> None:
    workspace, examples = opened
    alone = gradient(workspace, examples[:1], 0)
    assert alone.norm() > 0
    group = [*(examples[i] for i in companions), examples[0]]
    found = gradient(workspace, group, len(group) - 1)
    assert (found - alone).norm() <= 1e-4 * alone.norm()


def test_padding_changes_no_loss(opened: Opened) -> None:
    workspace, examples = opened
    batch = workspace.task.collate(examples[:2])
    one_a_record = workspace.task.record_kind in POOLED
    wider = Batch(
        torch.nn.functional.pad(batch.input_ids, (0, 7), value=workspace.tokenizer.pad_token_id),
        torch.nn.functional.pad(batch.attention_mask, (0, 7)),
        batch.target if one_a_record else torch.nn.functional.pad(batch.target, (0, 7), value=-100),
        batch.examples,
        segments=None
        if batch.segments is None
        else torch.nn.functional.pad(batch.segments, (0, 7)),
    )
    torch.testing.assert_close(losses(workspace, wider), losses(workspace, batch), **TOLERANCE)


def test_padded_positions_carry_no_token_and_no_target(opened: Opened) -> None:
    workspace, examples = opened
    batch = workspace.task.collate(examples)
    assert batch.attention_mask.sum(dim=1).tolist() == [len(e.input_ids) for e in examples]
    padding = batch.attention_mask == 0
    assert (batch.input_ids[padding] == workspace.tokenizer.pad_token_id).all()
    if workspace.task.record_kind not in POOLED:
        assert (batch.target[padding] == -100).all()


# --- the trap that the suite is there for ----------------------------------------------------


def share(model: torch.nn.Module, batch: Batch) -> Tensor:
    """What the first record adds to transformers' own loss of a batch, as a gradient."""
    output = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.target
    )
    grad = torch.autograd.grad(output.loss, [p for p in model.parameters() if p.requires_grad])
    return torch.cat([g.flatten() for g in grad])


@pytest.mark.parametrize(
    ("opened", "kind"),
    [(CASES[2], BertForTokenClassification), (CASES[3], LlamaForCausalLM)],
    ids=["token-classification", "causal-lm"],
    indirect=["opened"],
)
def test_the_loss_that_transformers_computes_does_change_with_companions(
    opened: Opened, kind: type[BertForTokenClassification] | type[LlamaForCausalLM]
) -> None:
    workspace, examples = opened
    torch.manual_seed(0)
    arguments = {"num_labels": 3} if kind is BertForTokenClassification else {}
    model = kind(AutoConfig.from_pretrained(workspace.folder, **arguments)).eval()
    first, second = examples[:2]
    one = share(model, workspace.task.collate([first]))
    two = share(model, workspace.task.collate([second]))
    both = share(model, workspace.task.collate([first, second]))
    # Were records weighed alike, the batch's loss would be the mean of the two.
    assert (both - (one + two) / 2).norm() > 0.1 * both.norm()


# With one target a record, a mean over targets is one over records: no trap for sequences.
@pytest.mark.parametrize("opened", CASES[2:4], ids=lambda case: case.kind, indirect=True)
def test_a_batch_mean_would_fail_the_companion_test(opened: Opened) -> None:
    workspace, examples = opened
    batch = workspace.task.collate(examples)
    logits = workspace.network(batch.input_ids, batch.attention_mask)
    counts = (batch.target != -100).sum(dim=1)
    # Each record's share of a mean over the batch's tokens, scaled up to the batch.
    trap = workspace.task.record_losses(logits, batch) * counts * len(counts) / counts.sum()
    alone = torch.cat([losses(workspace, workspace.task.collate([e])) for e in examples])
    assert not torch.allclose(trap, alone, **TOLERANCE)
