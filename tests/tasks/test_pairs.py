"""Two texts are cut fairly and encoded as one sequence, with types if the base has them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from cloister.data.records import PairRecord
from cloister.errors import MisfitError, UsageError
from cloister.models.base import load_tokenizer
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.build import build_task
from cloister.tasks.config import TaskConfig
from cloister.tasks.cut import most_characters
from cloister.tasks.pairs import BREAK, TextPairs, separator
from cloister.tasks.task import BatchShape
from cloister.testing.tasks import word_tokenizer
from cloister.training.workspace import Workspace, open_workspace

RECORDS = [
    PairRecord("chest pain at rest", "yes", text_b="pain since monday"),
    PairRecord("no rash", "no", text_b="the patient has a rash and a mild fever"),
    PairRecord("a b c d e f g h i j k l", "yes", text_b="m n o p q r s t u v w x"),
    PairRecord("a b c d e f g h i j k l", "no", text_b="fever"),
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    """Frames a pair as BERT's does: [CLS] first [SEP] second [SEP], with 1 at the second."""
    names = ["input_ids", "token_type_ids", "attention_mask"]
    made = word_tokenizer(RECORDS)
    special = {name: str(token) for name, token in made.special_tokens_map.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=made.backend_tokenizer, model_input_names=names, **special
    )


def task(tokenizer: PreTrainedTokenizerBase, max_length: int = 11) -> TextPairs:
    config = TaskConfig(kind="text-pairs", max_length=max_length)
    made = build_task(config, ("no", "yes"), tokenizer)
    assert isinstance(made, TextPairs)
    return made


def read(made: TextPairs, record: PairRecord) -> str:
    return " ".join(made.tokenizer.convert_ids_to_tokens(list(made.encode(record).input_ids)))


def test_of_a_long_pair_the_longer_text_is_cut_first(tokenizer: PreTrainedTokenizerBase) -> None:
    made = task(tokenizer)
    assert read(made, RECORDS[0]) == "[CLS] chest pain at rest [SEP] pain since monday [SEP]"
    assert read(made, RECORDS[2]) == "[CLS] a b c d [SEP] m n o p [SEP]"
    assert read(made, RECORDS[3]) == "[CLS] a b c d e f g [SEP] fever [SEP]"
    cut = [made.is_cut(record.text, record.text_b) for record in RECORDS]
    assert cut == [False, True, True, True]


def test_a_text_without_end_is_cut_before_it_is_read(tokenizer: PreTrainedTokenizerBase) -> None:
    made = task(tokenizer)
    for pair in (("fever " * 10_000, "rash"), ("rash", "fever " * 10_000)):
        record = PairRecord(pair[0], "yes", text_b=pair[1])
        assert len(made.encode(record).input_ids) == made.max_length
        assert made.is_cut(*pair)


def test_what_a_tokenizer_is_given_is_bounded_and_parted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """How long it takes must not tell of one record: each text is cut before it is read."""
    given: list[tuple[str, str]] = []

    def noting(first: str, second: str, **options: Any) -> Any:
        given.append((first, second))
        return tokenizer(first, second, **options)

    made = TextPairs(("no", "yes"), noting, 11, 0, BREAK)  # type: ignore[arg-type]
    made.encode(PairRecord("a" * 10**6, "yes", text_b="b" * 10**6))
    most = most_characters(11)
    assert given == [("a" * most, "\n" + "b" * most)]


def test_segments_say_which_text_a_token_is_of(tokenizer: PreTrainedTokenizerBase) -> None:
    made = task(tokenizer)
    first, second = (made.encode(record) for record in (RECORDS[0], RECORDS[3]))
    assert first.segments == (0,) * 6 + (1,) * 4
    batch = made.collate([first, second], BatchShape(3, 12, (3,)))
    assert batch.segments is not None
    # Padding and the dummy row are of no text.
    assert batch.segments.tolist() == [
        [0] * 6 + [1] * 4 + [0] * 2,
        [0] * 9 + [1] * 2 + [0],
        [0] * 12,
    ]


def test_texts_that_a_tokenizer_does_not_part_are_parted_by_a_line_break(
    tokenizer: PreTrainedTokenizerBase, llama: Path
) -> None:
    assert (separator(tokenizer), separator(load_tokenizer(llama))) == ("", BREAK)


def test_a_pair_that_no_room_is_left_for_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UsageError, match="set at least 5"):
        task(tokenizer, max_length=4)
    assert len(task(tokenizer, max_length=5).encode(RECORDS[2]).input_ids) == 5


def test_an_unknown_label_and_too_few_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(MisfitError, match="not among the study's 2"):
        task(tokenizer).encode(PairRecord("fever", "maybe", text_b="rash"))
    with pytest.raises(UsageError, match="at least 2"):
        build_task(TaskConfig(kind="text-pairs"), ("no",), tokenizer)


def calibration_error(logits: np.ndarray, true: np.ndarray) -> float:  # type: ignore[type-arg]
    """Of 15 bins of the largest probability: how far its mean is from how often it is right."""
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == true
    bins = np.ceil(sure * 15)
    gaps = [abs(sure[bins == b].sum() - right[bins == b].sum()) for b in np.unique(bins)]
    return float(np.sum(gaps)) / len(true)


def test_losses_and_scores_are_those_of_a_slow_twin(tokenizer: PreTrainedTokenizerBase) -> None:
    made = task(tokenizer)
    batch = made.collate([made.encode(record) for record in RECORDS])
    logits = np.array([[0.3, -1.2], [2.0, 0.5], [-0.4, -0.1], [0.0, 0.9]])
    true = [1, 0, 1, 0]
    losses = [
        -np.log(np.exp(row[t]) / np.exp(row).sum()) for row, t in zip(logits, true, strict=True)
    ]
    tensor = torch.tensor(logits)
    # float32: 24 bits, a handful of operations.
    np.testing.assert_allclose(made.record_losses(tensor, batch).numpy(), losses, rtol=1e-6)
    meter = made.meter()
    meter.add(tensor, batch)
    predicted = logits.argmax(axis=1)
    assert meter.result() == {
        "accuracy": accuracy_score(true, predicted),
        "macro_f1": pytest.approx(f1_score(true, predicted, average="macro")),
        "loss": pytest.approx(np.mean(losses), rel=1e-6),
        "ece": pytest.approx(calibration_error(logits, np.array(true)), rel=1e-5),
    }


# --- what the base reads ----------------------------------------------------------------------


def opened(folder: Path, kind: str, tokenizer: PreTrainedTokenizerBase) -> Workspace:
    size = len(tokenizer)
    torch.manual_seed(0)
    if kind == "bert":
        about = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        BertModel(BertConfig(vocab_size=size, intermediate_size=16, **about)).save_pretrained(
            folder
        )
    else:
        small = DistilBertConfig(vocab_size=size, dim=16, n_layers=2, n_heads=2, hidden_dim=16)
        DistilBertModel(small).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return open_workspace(
        ModelConfig(base=str(folder)),
        LoraConfig(train="both", top_layers=1, head="frozen"),
        TaskConfig(kind="text-pairs", max_length=11),
        ("no", "yes"),
        0,
        frozen_cache_gib=1.0,
    )


@pytest.fixture(scope="module")
def bert_pairs(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase
) -> Workspace:
    return opened(tmp_path_factory.mktemp("bert"), "bert", tokenizer)


def test_kept_states_tell_pairs_apart_that_differ_in_where_they_are_parted(
    bert_pairs: Workspace,
) -> None:
    """The same tokens with other segments are other states: what is kept of one is not the
    other's."""
    network, made = bert_pairs.network, bert_pairs.task
    assert network.prefix is not None
    whole = made.encode(RECORDS[0])
    plain = replace(whole, segments=())
    with torch.no_grad():
        kept = [network.logits(made.collate([example])) for example in (whole, plain, whole)]
        alone = [
            network(**network.inputs(made.collate([example]))) for example in (whole, plain, whole)
        ]
    # The states are those of the same float32 operations.
    torch.testing.assert_close(kept, alone, rtol=1e-5, atol=1e-6)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


def test_pairs_beside_any_others_keep_their_logits(bert_pairs: Workspace) -> None:
    network, made = bert_pairs.network, bert_pairs.task
    examples = bert_pairs.encode(RECORDS)
    with torch.no_grad():
        together = network(**network.inputs(made.collate(examples)))
        for row, example in zip(together, examples, strict=True):
            alone = network(**network.inputs(made.collate([example])))[0]
            torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-5)


def test_a_base_without_segments_reads_a_pair_all_the_same(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    workspace = opened(tmp_path, "distilbert", tokenizer)
    batch = workspace.task.collate(workspace.encode(RECORDS))
    assert batch.segments is not None
    assert "token_type_ids" not in workspace.network.inputs(batch)
    with torch.no_grad():
        assert workspace.network.logits(batch).shape == (4, 2)
