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


def test_replies_together_are_those_one_by_one(llama: Path) -> None:
    opened = open_chat(llama)
    task, network = opened.task, opened.network
    assert isinstance(task, CausalChat)
    said = ["chest pain", "fever", "severe rash", "itchy rash and fever", "mild cough"]
    prompts = [
        task.prompt(ChatRecord((Message("user", text), Message("assistant", "no"))))
        for text in said
    ]
    together = replies_to(network, task, opened.tokenizer, prompts)
    assert together == [reply_to(network, task, opened.tokenizer, p) for p in prompts]
    assert len(set(map(len, prompts))) < len(prompts)


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
