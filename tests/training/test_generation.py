"""Replies stay within what the base can attend to."""

from pathlib import Path

import pytest
import torch

from cloister.data.records import ChatRecord, Message
from cloister.models.config import LoraConfig, ModelConfig
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig
from cloister.training.generation import GENERATED, reply_score
from cloister.training.workspace import open_workspace


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
        seen.append((options["input_ids"].shape[1], output.shape[1]))
        return output

    monkeypatch.setattr(network.backbone, "generate", watched)
    records = [chat(1), *[chat(30)] * GENERATED]
    assert 0 <= reply_score(network, opened.task, opened.tokenizer, records) <= 1
    assert len(seen) == GENERATED
    assert all(prompt <= 32 and whole <= 64 for prompt, whole in seen)
