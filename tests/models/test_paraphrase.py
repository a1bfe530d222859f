"""A local model paraphrases texts: equal for equal seeds, and nothing if it cannot."""

from pathlib import Path

import pytest
import torch

from cloister.errors import ModelFileError
from cloister.models.paraphrase import Paraphraser, _usable
from tests.support.models import tiny_gpt2, tiny_llama

TEXT = "chest pain at rest"


def test_equal_texts_and_seeds_give_equal_words(tmp_path: Path) -> None:
    say = Paraphraser.of(tiny_llama(tmp_path / "llama"))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    found = [say(TEXT, seed) for seed in range(4)]
    assert torch.equal(torch.get_rng_state(), before)
    assert [say(TEXT, seed) for seed in range(4)] == found
    assert len(set(found)) > 1
    assert say("pain " * 60, 0) is None  # more than the base has positions
    assert len(say.sha256) == 64


def test_a_chat_template_is_used_where_there_is_one(tmp_path: Path) -> None:
    say = Paraphraser.of(tiny_gpt2(tmp_path / "gpt2"))
    say.tokenizer.chat_template = "{% for m in messages %}{{ m.content[-9:] }}{% endfor %} rest"
    assert say.tokenizer.decode(say._prompt("x chest pain")[0]) == "[UNK] pain rest"


@pytest.mark.parametrize(
    ("reply", "usable"),
    [
        ("  “Pain in the chest, resting.”\n\nI kept the meaning.", "Pain in the chest, resting."),
        ("静息时胸口疼痛不止", "静息时胸口疼痛不止"),
        ("CHEST pain at rest ", None),
        ("no", None),
        ("pain " * 20, None),
        ("", None),
    ],
)
def test_a_reply_that_is_no_paraphrase_is_none(reply: str, usable: str | None) -> None:
    assert _usable(reply, TEXT) == usable


def test_what_is_no_folder_of_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"--paraphrase: .* is not a folder"):
        Paraphraser.of(tmp_path / "none")
    with pytest.raises(ModelFileError, match=r"no \.safetensors"):
        Paraphraser.of(tmp_path)
