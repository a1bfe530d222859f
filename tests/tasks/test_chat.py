"""The learnt tokens of a conversation, compared with examples by hand."""

import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cloister.data.records import ChatRecord, Message
from cloister.errors import MisfitError, UsageError
from cloister.tasks.build import build_task, labels_of
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.tasks.task import IGNORE
from cloister.tasks.template import ChatTemplate
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
        IGNORE,
        IGNORE,
        *ids("rest [SEP]"),
        IGNORE,
        *ids("no fever [SEP]"),
    ]


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
    with pytest.raises(MisfitError, match=r"task\.chat_template: .* turn by turn"):
        task(template).encode(conversation("fever", "rest", "cough", "no"))


def test_of_a_template_that_drops_earlier_replies_the_last_is_learnt() -> None:
    template = "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }} " + (
        "{% endif %}{% endfor %}"
    )
    example = task(template).encode(conversation("fever", "rest", "cough", "no", "knee"))
    assert list(example.input_ids) == ids("fever cough no")
    assert list(example.target) == [IGNORE, IGNORE, *ids("no")]


def test_a_text_is_learnt_whole_with_its_end() -> None:
    bound = task()
    example = bound.encode(ChatRecord((), text="chest pain"))
    assert list(example.input_ids) == list(example.target) == ids("chest pain [SEP]")  # type: ignore[arg-type]
    framed = task(frame=True).encode(ChatRecord((), text="chest pain"))
    assert list(framed.input_ids) == [2, *ids("chest pain [SEP]")]
    assert list(framed.target) == [IGNORE, *ids("chest pain"), IGNORE]


def test_a_left_cut_keeps_the_last_turn() -> None:
    record = conversation("chest pain at rest", "no", "since monday", "mild")
    config = TaskConfig(kind="causal-lm", max_length=5, chat_template=BARE, truncation_side="left")
    bound = build_task(config, (), word_tokenizer(frame=False))
    example = bound.encode(record)
    assert list(example.input_ids) == ids("[SEP] since monday mild [SEP]")
    assert list(example.target) == [END, IGNORE, IGNORE, *ids("mild [SEP]")]
    long = bound.encode(ChatRecord((), text="a fever " * 200 + "mild"))
    assert list(long.input_ids) == list(long.target) == ids("fever a fever mild [SEP]")  # type: ignore[arg-type]


def test_a_side_to_cut_is_of_conversations_alone() -> None:
    with pytest.raises(UsageError, match="truncation_side: given for 'sequence-classification'"):
        TaskConfig(truncation_side="left")


def test_a_tokenizers_own_template_is_used_before_the_plain_one() -> None:
    tokenizer = word_tokenizer(frame=False)
    tokenizer.chat_template = BARE
    own = build_task(TaskConfig(kind="causal-lm"), (), tokenizer)
    assert isinstance(own, CausalChat)
    assert own.template == ChatTemplate(BARE, is_own=True)


def test_conversations_have_no_labels() -> None:
    assert labels_of([conversation("fever", "rest")], "messages") == ()
    assert task().labels == ()


def byte_tokenizer(*, trim: bool) -> PreTrainedTokenizerFast:
    """Bytes as tokens; `trim` takes spaces off their offsets, as RoBERTa's tokenizer does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(["</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.mark.parametrize("trim", [False, True])
def test_every_byte_of_a_reply_is_learnt_spaces_and_emoji_too(trim: bool) -> None:
    tokenizer = byte_tokenizer(trim=trim)
    bound = build_task(TaskConfig(kind="causal-lm"), (), tokenizer)
    reply = "a  b\n\n  c 头痛 😀"
    example = bound.encode(conversation("hi  there ", reply))
    assert isinstance(example.target, tuple)
    learnt = [token for token in example.target if token != IGNORE]
    # The space after "Assistant:" belongs to the reply: the prompt ends before it.
    assert tokenizer.decode(learnt) == f" {reply}</s>"


@pytest.mark.parametrize("template", [None, "{{ '[CLS]' }}" + BARE])
def test_a_conversation_has_one_beginning_whoever_writes_it(template: str | None) -> None:
    tokenizer = word_tokenizer(frame=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 2)]
    )
    bound = build_task(TaskConfig(kind="causal-lm", chat_template=template), (), tokenizer)
    assert isinstance(bound, CausalChat)
    record = conversation("fever", "rest", "cough", "no")
    example = bound.encode(record)
    assert [place for place, token in enumerate(example.input_ids) if token == 2] == [0]
    assert bound.prompt(record).count(2) == 1
    assert example.target[0] == IGNORE  # type: ignore[index]


def test_a_conversation_that_the_base_s_template_does_not_take_is_a_misfit() -> None:
    template = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('the user begins') }}{% endif %}"
    )
    tokenizer = word_tokenizer(frame=False)
    tokenizer.chat_template = template + BARE
    bound = build_task(TaskConfig(kind="causal-lm"), (), tokenizer)
    record = ChatRecord((Message("system", "fever"), Message("assistant", "rest")))
    with pytest.raises(MisfitError, match=r"turns of system, assistant .*the user begins") as found:
        bound.encode(record)
    # What was said is the site's own.
    assert "fever" not in str(found.value)


def test_a_template_that_is_not_jinja_is_refused() -> None:
    with pytest.raises(UsageError, match=r"task\.chat_template: .*endfor"):
        task("{% for m in messages %}").encode(conversation("fever", "rest"))


def test_a_conversation_without_any_token_still_has_one() -> None:
    bound = task("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    batch = bound.collate([bound.encode(ChatRecord((Message("assistant", ""),)))])
    assert batch.input_ids.dtype == torch.int64
    assert bound.record_losses(torch.zeros(1, 1, VOCABULARY), batch).tolist() == [0.0]


def test_perplexity_without_any_assistant_token_is_not_perfect() -> None:
    bound = task(max_length=4)
    batch = bound.collate([bound.encode(conversation("chest pain at rest", "no"))])
    meter = bound.meter()
    meter.add(torch.zeros(1, 4, VOCABULARY), batch)
    assert meter.result() == {"perplexity": math.inf, "loss": 0.0}
    assert bound.meter().result()["perplexity"] == math.inf


def test_a_perplexity_too_large_for_a_float_is_infinite() -> None:
    bound = task()
    batch = bound.collate([bound.encode(conversation("fever", "rest"))])
    logits = torch.zeros(1, 3, VOCABULARY)
    logits[..., 0] = 1000.0  # certain of padding: a loss of 1000 a token, and e^1000 > 1.8e308
    meter = bound.meter()
    meter.add(logits, batch)
    assert meter.result() == {"perplexity": math.inf, "loss": pytest.approx(1000.0)}


def test_padding_is_the_end_token_where_there_is_no_other() -> None:
    tokenizer = word_tokenizer(frame=False)
    tokenizer.pad_token = None
    bound = build_task(TaskConfig(kind="causal-lm", chat_template=BARE), (), tokenizer)
    turns = [conversation("fever", "rest"), conversation("fever", "no fever")]
    batch = bound.collate([bound.encode(record) for record in turns])
    assert batch.input_ids[0].tolist() == [*ids("fever rest [SEP]"), END]
    # Padding looks like the end of a turn, but is neither attended to nor learnt.
    assert batch.attention_mask[0].tolist() == [1, 1, 1, 0]
    assert batch.target[0].tolist() == [IGNORE, *ids("rest [SEP]"), IGNORE]


@pytest.mark.parametrize("kind", ["causal-lm", "token-classification"])
def test_a_tokenizer_that_does_not_say_where_tokens_are_is_refused(
    kind: TaskKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(UsageError, match=f"{kind} needs a fast tokenizer"):
        build_task(TaskConfig(kind=kind), ("X",), word_tokenizer())
