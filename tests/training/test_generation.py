"""Replies stay within the base's context and end where training ended them."""

from pathlib import Path

import pytest
import torch
from transformers import AddedToken
from transformers.modeling_outputs import CausalLMOutputWithPast

from cloister.data.records import ChatRecord, Message
from cloister.errors import ModelFileError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig
from cloister.training.generation import (
    GENERATED,
    MOST_TOGETHER,
    PADDED,
    _together,
    check_replies,
    replies_to,
    reply_score,
    reply_to,
)
from cloister.training.workspace import Workspace, open_workspace
from tests.support.architectures import tiny
from tests.support.models import word_tokenizer


def chat(turns: int) -> ChatRecord:
    pair = (Message("user", "chest pain at rest"), Message("assistant", "severe rash"))
    return ChatRecord(pair * turns)


def test_a_prompt_leaves_room_for_the_reply(gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_workspace(
        ModelConfig(base=str(gpt2)),
        LoraConfig(),
        TaskConfig(kind="causal-lm", max_length=64),
        (),
        0,
    )
    assert isinstance(opened.task, CausalChat)
    network, seen = opened.network, []
    generate = network.backbone.generate

    def watched(**options: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = generate(**options)
        seen.append((len(output), options["input_ids"].shape[1], output.shape[1]))
        return output

    monkeypatch.setattr(network.backbone, "generate", watched)
    records = [chat(1), *[chat(30)] * GENERATED]
    assert 0 <= reply_score(network, opened.task, opened.tokenizer, records) <= 1
    # Prompts of one length are answered together.
    assert [rows for rows, _, _ in seen] == [1, GENERATED - 1]
    assert all(prompt <= 32 and whole <= 64 for _, prompt, whole in seen)


# Of several lengths, two of them equal; longer than the sliding windows of 8 tokens.
PROMPTS = [(5, 6, 7), (9, 4, 8, 6), (8, 8, 5, 4), (4, 5, 6, 7, 8), (7, 9) * 6]


@pytest.mark.parametrize("name", [*sorted(PADDED), "gpt2", "bloom", "mamba"])
def test_replies_together_are_those_one_by_one(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of families that read padding before a text, only prompts of one length are together."""
    opened = open_chat(tiny(tmp_path, name.replace("_", "-")))
    task, network = opened.task, opened.network
    assert isinstance(task, CausalChat)
    generate, together = network.backbone.generate, []

    def watched(**options: torch.Tensor) -> torch.Tensor:
        together.append(len(options["input_ids"]))
        output: torch.Tensor = generate(**options)
        return output

    monkeypatch.setattr(network.backbone, "generate", watched)
    replies = replies_to(network, task, opened.tokenizer, PROMPTS)
    assert together == ([5] if name in PADDED else [1, 2, 1, 1])
    assert replies == [reply_to(network, task, opened.tokenizer, p) for p in PROMPTS]


def test_padding_that_is_read_changes_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its mask the comparison above fails, so it can tell."""
    opened = open_chat(tiny(tmp_path, "llama"))
    task, network = opened.task, opened.network
    assert isinstance(task, CausalChat)
    generate = network.backbone.generate

    def unmasked(**options: torch.Tensor) -> torch.Tensor:
        ones = torch.ones_like(options["attention_mask"])
        output: torch.Tensor = generate(**{**options, "attention_mask": ones})
        return output

    alone = [reply_to(network, task, opened.tokenizer, prompt) for prompt in PROMPTS]
    monkeypatch.setattr(network.backbone, "generate", unmasked)
    assert replies_to(network, task, opened.tokenizer, PROMPTS) != alone


def test_few_enough_tokens_are_together() -> None:
    lengths = [MOST_TOGETHER // 2, 1, MOST_TOGETHER // 2, MOST_TOGETHER // 2, 2 * MOST_TOGETHER]
    assert _together(lengths, can_pad=True) == [[1, 0], [2, 3], [4]]
    assert _together(lengths, can_pad=False) == [[1], [0, 2], [3], [4]]


def open_chat(base: Path) -> Workspace:
    task = TaskConfig(kind="causal-lm", max_length=32)
    return open_workspace(ModelConfig(base=str(base)), LoraConfig(), task, (), 0)


ENDS = {"a token": ("<|im_end|>", True), "ordinary text": ("severe mild", False)}


@pytest.mark.parametrize("name", ENDS)
def test_a_reply_ends_where_training_taught_it_to(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's own end of text is another, and never comes."""
    closing, is_special = ENDS[name]
    tokenizer = word_tokenizer(frame=False)
    if is_special:
        tokenizer.add_tokens([AddedToken(closing, special=True)], special_tokens=True)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }} " + closing + "\n{% endfor %}"
    )
    base = tiny(tmp_path / "base", "llama", tokenizer=tokenizer)
    opened = open_chat(base)
    assert isinstance(opened.task, CausalChat)
    said = tokenizer("rash fever " + closing + " cough cough")["input_ids"]
    steps: list[int] = []

    def forced(self: object, input_ids: torch.Tensor, **_: object) -> CausalLMOutputWithPast:
        """Says so many words in turn, and on for ever."""
        logits = torch.zeros(1, input_ids.shape[1], len(tokenizer))
        logits[:, -1, said[len(steps) % len(said)]] = 1.0
        steps.append(1)
        return CausalLMOutputWithPast(logits=logits)

    monkeypatch.setattr(type(opened.network.base), "forward", forced)
    record = ChatRecord((Message("user", "rash"), Message("assistant", "rash fever")))
    assert reply_score(opened.network, opened.task, opened.tokenizer, [record]) == 1.0
    assert len(steps) == 2 + len(tokenizer(closing)["input_ids"])


def test_a_base_that_cannot_generate_is_refused_before_anything_is_trained(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_chat(llama)
    task, network = opened.task, opened.network
    assert isinstance(task, CausalChat)
    check_replies(network, task, opened.tokenizer, "base")

    def fails(**_: object) -> None:
        raise AttributeError("no attribute 'max_position_embeddings'")

    monkeypatch.setattr(network.backbone, "generate", fails)
    with pytest.raises(ModelFileError, match=r"\(llama\) cannot generate .*AttributeError"):
        check_replies(network, task, opened.tokenizer, "base")
