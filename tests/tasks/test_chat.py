"""Which tokens of a conversation are learnt, by hand."""

import math

import pytest
import torch

from cloister.data.records import ChatRecord, Message
from cloister.errors import UsageError
from cloister.tasks.build import build_task, labels_of
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig
from cloister.tasks.task import IGNORE
from tests.support.models import VOCABULARY, WORDS, word_tokenizer

# Words and end tokens alone: every token of the text is in the vocabulary.
BARE = (
    "{% for m in messages %}{{ m['content'] + ' ' }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token + ' ' }}{% endif %}{% endfor %}"
)
END = 3  # [SEP]


def task(template: str | None = BARE, max_length: int = 32, *, frame: bool = False) -> CausalChat:
    built = build_task(
        TaskConfig(kind="causal-lm", max_length=max_length, chat_template=template),
        (),
        word_tokenizer(frame=frame),
    )
    assert isinstance(built, CausalChat)
    return built


def conversation(*turns: str) -> ChatRecord:
    """Turns of the user and the assistant in alternation."""
    return ChatRecord(
        tuple(
            Message("assistant" if place % 2 else "user", text) for place, text in enumerate(turns)
        )
    )


def ids(words: str) -> list[int]:
    return [END if word == "[SEP]" else 4 + WORDS.index(word) for word in words.split()]


def test_the_assistants_tokens_and_its_end_are_learnt() -> None:
    example = task().encode(conversation("chest pain", "rest"))
    assert list(example.input_ids) == ids("chest pain rest [SEP]")
    assert list(example.target) == [IGNORE, IGNORE, *ids("rest [SEP]")]


def test_every_turn_of_the_assistant_is_learnt() -> None:
    example = task().encode(conversation("chest pain", "rest", "fever", "no fever"))
    assert list(example.input_ids) == ids("chest pain rest [SEP] fever no fever [SEP]")
    assert list(example.target) == [
        IGNORE, IGNORE, *ids("rest [SEP]"), IGNORE, *ids("no fever [SEP]"),
    ]  # fmt: skip


def test_the_plain_template_marks_roles_and_learns_none_of_them() -> None:
    bound = task(None)
    example = bound.encode(conversation("fever", "cough"))
    # "User: fever⏎Assistant: cough[SEP]⏎": names and colons are unknown words, 1.
    assert list(example.input_ids) == [1, 1, *ids("fever"), 1, 1, *ids("cough [SEP]")]
    assert list(example.target) == [*[IGNORE] * 5, *ids("cough [SEP]")]


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("template", [BARE, None])
def test_a_prompt_is_how_the_conversation_begins(template: str | None, frame: bool) -> None:
    bound = task(template, frame=frame)
    record = conversation("chest pain", "rest", "fever", "no fever")
    whole, prompt = bound.encode(record), bound.prompt(record)
    assert whole.input_ids[: len(prompt)] == prompt
    learnt = [token for token in whole.target[len(prompt) :] if token != IGNORE]  # type: ignore[index]
    assert learnt == ids("no fever [SEP]")


def test_a_prompt_of_the_plain_template_ends_before_the_space() -> None:
    # A tokenizer that joins spaces to words would otherwise never have seen how a prompt ends.
    bound = task(None)
    text = bound._apply(conversation("fever").messages, generation=True)
    assert text == "User: fever\nAssistant:"


def test_a_long_prompt_keeps_its_end() -> None:
    record = conversation("chest pain at rest", "no")
    assert list(task(max_length=2).prompt(record)) == ids("at rest")


def test_the_reference_is_the_last_turn_of_the_assistant() -> None:
    record = conversation("chest pain", "rest", "fever", "no fever", "cough")
    assert task().reference_text(record) == "no fever"


def test_a_conversation_whose_reply_is_cut_off_teaches_nothing() -> None:
    bound = task(max_length=4)
    example = bound.encode(conversation("chest pain at rest", "no"))
    assert set(example.target) == {IGNORE}  # type: ignore[arg-type]
    other = bound.encode(conversation("fever", "no"))
    batch = bound.collate([example, other])
    logits = torch.randn(
        2, 4, VOCABULARY, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    losses = bound.record_losses(logits, batch)
    losses.sum().backward()
    assert losses[0] == 0
    assert losses[1] > 0
    assert logits.grad is not None
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


@pytest.mark.parametrize("template", [BARE, None])
def test_the_assistant_may_open_the_conversation(template: str | None) -> None:
    bound = task(template)
    record = ChatRecord((Message("assistant", "no fever"), Message("user", "a rash")))
    example = bound.encode(record)
    assert [t for t in example.target if t != IGNORE] == ids("no fever [SEP]")  # type: ignore[union-attr]
    prompt = bound.prompt(record)
    assert example.input_ids[: len(prompt)] == prompt


def test_a_conversation_of_one_token_has_loss_zero() -> None:
    bound = task()
    batch = bound.collate([bound.encode(ChatRecord((Message("assistant", ""),)))])
    assert batch.input_ids.shape == (1, 1)
    assert bound.record_losses(torch.randn(1, 1, VOCABULARY), batch).tolist() == [0.0]


def test_a_prediction_is_compared_with_the_token_after_it() -> None:
    bound = task()
    batch = bound.collate([bound.encode(conversation("chest", "pain"))])
    # chest → pain → [SEP]; a score of 50 leaves a loss below 26·e⁻⁵⁰ where it is right.
    right = torch.zeros(1, 3, VOCABULARY)
    right[0, 0, ids("pain")[0]] = right[0, 1, END] = 50.0
    assert bound.record_losses(right, batch).tolist() == [pytest.approx(0, abs=1e-6)]
    unshifted = torch.nn.functional.one_hot(batch.input_ids, VOCABULARY).float() * 50
    assert bound.record_losses(unshifted, batch)[0] > 49


def test_perplexity_is_over_tokens_and_loss_over_records() -> None:
    bound = task()
    # Two targets (rest, end) and three (no, fever, end).
    examples = [
        bound.encode(conversation("fever", "rest")),
        bound.encode(conversation("fever", "no fever")),
    ]
    batch = bound.collate(examples)
    logits = torch.zeros(2, 4, VOCABULARY)
    # The second record's targets get ln(25) more than the others: probability 25 of 25 + 25.
    for place, token in enumerate(ids("no fever [SEP]")):
        logits[1, place, token] = math.log(VOCABULARY - 1)
    meter = bound.meter()
    meter.add(logits, batch)
    per_token = (math.log(VOCABULARY), math.log(2))
    assert meter.result() == {
        "perplexity": pytest.approx(math.exp((2 * per_token[0] + 3 * per_token[1]) / 5)),
        "loss": pytest.approx((per_token[0] + per_token[1]) / 2),
    }
    assert meter.report() == {}


def test_a_template_that_rewrites_what_it_said_is_refused() -> None:
    # The number of turns comes first, so that no beginning is the beginning of the whole.
    template = "{{ messages | length }} " + BARE
    with pytest.raises(UsageError, match=r"task\.chat_template: .* turn by turn"):
        task(template).encode(conversation("fever", "rest", "cough", "no"))


def test_a_template_that_drops_earlier_replies_is_refused() -> None:
    template = "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }} " + (
        "{% endif %}{% endfor %}"
    )
    with pytest.raises(UsageError, match="turn by turn"):
        task(template).encode(conversation("fever", "rest", "cough", "no"))


def test_a_tokenizers_own_template_is_used_before_the_plain_one() -> None:
    tokenizer = word_tokenizer(frame=False)
    tokenizer.chat_template = BARE
    own = build_task(TaskConfig(kind="causal-lm"), (), tokenizer)
    assert isinstance(own, CausalChat)
    assert own.template == BARE


def test_conversations_have_no_labels() -> None:
    assert labels_of([conversation("fever", "rest")], "messages") == ()
    assert task().labels == ()
