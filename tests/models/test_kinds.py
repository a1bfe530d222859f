"""A base that reads more than texts is refused by name, before its weights are read."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from cloister.errors import ModelFileError, UsageError
from cloister.models.base import load_backbone
from cloister.models.config import LoraConfig, ModelConfig
from cloister.models.kinds import network_class, read_config
from cloister.models.trial import check_reads
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.training.proof import prove
from cloister.training.workspace import open_workspace
from tests.support.architectures import DECODERS, ENCODERS, LLAMA, tiny
from tests.support.isolation import CONFIG, PLAN
from tests.support.models import word_tokenizer
from tests.support.studies import small_workspace

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
TEXT = {key: value for key, value in LLAMA.items() if not key.endswith("_token_id")}

# Wrappers whose text network is read: configuration, its values, and the class that saves them.
WRAPPERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma3": (
        "Gemma3Config",
        {"text_config": TEXT, "vision_config": VISION},
        "Gemma3ForConditionalGeneration",
    ),
    "llava": (
        "LlavaConfig",
        {
            "text_config": {"model_type": "llama", **TEXT},
            "vision_config": {"model_type": "clip_vision_model", **VISION},
        },
        "LlavaForConditionalGeneration",
    ),
    "mistral3": (
        "Mistral3Config",
        {
            "text_config": {"model_type": "mistral", **TEXT},
            "vision_config": {"model_type": "pixtral", **VISION},
        },
        "Mistral3ForConditionalGeneration",
    ),
    "idefics3": (
        "Idefics3Config",
        {
            "text_config": {"model_type": "llama", **TEXT, "pad_token_id": 0},
            "vision_config": VISION,
        },
        "Idefics3ForConditionalGeneration",
    ),
    "qwen2_audio": (
        "Qwen2AudioConfig",
        {
            "text_config": {"model_type": "qwen2", **TEXT},
            "audio_config": {
                "d_model": 16,
                "encoder_layers": 1,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "num_mel_bins": 8,
            },
        },
        "Qwen2AudioForConditionalGeneration",
    ),
}
# Wrappers without a network that reads only text, and how the refusal names them.
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mllama": ("MllamaConfig", {}, r"is a mllama, a wrapper of .*reads only text"),
    "encoder-decoder": (
        "EncoderDecoderConfig",
        {"encoder": {"model_type": "bert"}, "decoder": {"model_type": "bert"}},
        "is a encoder-decoder, an encoder with a decoder",
    ),
}


def wrapper(folder: Path, name: str) -> Any:
    """A wrapper on disk, with the tokenizer of tests' words; returns its whole network."""
    config_name, values, class_name = WRAPPERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, class_name)(getattr(transformers, config_name)(**values))
    made.save_pretrained(folder)
    word_tokenizer(frame=False).save_pretrained(folder)
    return made.eval()


@pytest.mark.parametrize("name", WRAPPERS)
def test_of_a_wrapper_the_text_network_is_read(tmp_path: Path, name: str) -> None:
    whole = wrapper(tmp_path, name)
    ids = torch.tensor([[5, 6, 7, 8, 3]])
    text = load_backbone(tmp_path, ModelConfig(), causal=True)
    hidden = load_backbone(tmp_path, ModelConfig(), causal=False)
    assert text.num_parameters() < whole.num_parameters()
    with torch.no_grad():
        assert torch.equal(text(ids).logits, whole(input_ids=ids).logits)
        assert hidden(ids).last_hidden_state.shape == (1, 5, 16)


@pytest.mark.parametrize("kind", ["sequence-classification", "causal-lm"])
def test_a_wrapper_s_text_network_trains(tmp_path: Path, kind: TaskKind) -> None:
    wrapper(tmp_path, "gemma3")
    workspace = open_workspace(
        ModelConfig(base=str(tmp_path)),
        LoraConfig(),
        TaskConfig(kind=kind, max_length=16),
        ("a", "b") if kind == "sequence-classification" else (),
        0,
    )
    assert not any("vision" in name for name, _ in workspace.network.named_parameters())
    assert prove(workspace, PLAN, CONFIG).shapes.longest == 16


def test_a_wrapper_that_lacks_a_text_weight_is_refused(tmp_path: Path) -> None:
    wrapper(tmp_path, "gemma3")
    weights = load_file(tmp_path / "model.safetensors")
    removed = next(name for name in sorted(weights) if "q_proj" in name and "language" in name)
    del weights[removed]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match="would start at random"):
        load_backbone(tmp_path, ModelConfig(), causal=True)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["sequence-classification", "causal-lm"])
def test_a_wrapper_without_such_a_network_is_refused_by_name(
    tmp_path: Path, name: str, kind: TaskKind
) -> None:
    config_name, values, message = REFUSED[name]
    getattr(transformers, config_name)(**values).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelFileError, match=message):
        open_workspace(
            ModelConfig(base=str(tmp_path)), LoraConfig(), TaskConfig(kind=kind), ("a", "b"), 0
        )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("distilbert", "no language-modelling head"),
        ("electra", "an encoder: each of its tokens reads the whole text"),
        ("bert", "an encoder: each of its tokens reads the whole text"),
        ("t5", "an encoder with a decoder, which is not supported for this"),
    ],
)
def test_chat_needs_a_decoder(tmp_path: Path, name: str, reason: str) -> None:
    base = tiny(tmp_path, name)
    kind = TaskConfig(kind="causal-lm", max_length=16)
    with pytest.raises(ModelFileError, match=rf"{reason}.*choose a decoder"):
        open_workspace(ModelConfig(base=str(base)), LoraConfig(), kind, (), 0)


def test_a_decoder_whose_tokens_read_ahead_is_found_out_by_trying(tmp_path: Path) -> None:
    """transformers counts XLNet to the causal models, and its tokens read the whole text."""
    base = tiny(tmp_path, "xlnet")
    lora = LoraConfig(target_modules=("layer_1",))
    kind = TaskConfig(kind="causal-lm", max_length=16)
    with pytest.raises(ModelFileError, match=r"\(xlnet\) a token reads later ones"):
        open_workspace(ModelConfig(base=str(base)), lora, kind, (), 0)


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_every_architecture_opens_with_its_default_modules(tmp_path: Path, name: str) -> None:
    base = tiny(tmp_path, name)
    task = TaskConfig(max_length=16)

    def opened(**lora: Any) -> Any:
        model = ModelConfig(base=str(base))
        return open_workspace(model, LoraConfig(**lora), task, ("a", "b"), 0, frozen_cache_gib=1.0)

    if name == "albert":  # one layer, called again and again
        with pytest.raises(UsageError, match=r'share their weights.*lora\.train = "none"'):
            opened()
        assert set(opened(train="none", top_layers=0).start) == {"head.weight", "head.bias"}
        return
    assert any("lora_B" in parameter for parameter in opened().start)


@pytest.mark.parametrize("kind", ["sequence-classification", "token-classification", "causal-lm"])
def test_an_encoder_with_a_decoder_is_refused_by_name(tmp_path: Path, kind: TaskKind) -> None:
    base = tiny(tmp_path, "bart")
    with pytest.raises(ModelFileError, match="is a bart, an encoder with a decoder"):
        open_workspace(
            ModelConfig(base=str(base)), LoraConfig(), TaskConfig(kind=kind), ("a", "b"), 0
        )


def test_of_an_encoder_with_a_decoder_the_encoder_is_read(tmp_path: Path) -> None:
    base = tiny(tmp_path, "t5")
    kind = network_class(base, read_config(base), causal=False)
    assert kind is transformers.AutoModelForTextEncoding


@pytest.mark.parametrize(
    "error", [ValueError("pixel_values are needed"), TypeError("bbox"), KeyError("x"), Exception()]
)
def test_a_base_that_needs_more_than_ids_is_refused_when_it_is_opened(
    bert: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(transformers.BertModel, "forward", fails)
    with pytest.raises(ModelFileError, match=r"\(bert\) cannot read texts.*reads only token ids"):
        small_workspace(bert)


def test_logits_of_another_shape_are_refused(bert: Path) -> None:
    network = small_workspace(bert).network

    class Halved(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features[:1]

    network.head = Halved()
    with pytest.raises(ModelFileError, match="logits of shape"):
        check_reads(network, "base", 0)


def test_modules_that_peft_cannot_adapt_are_named(tmp_path: Path) -> None:
    base = tiny(tmp_path, "mamba")
    with pytest.raises(UsageError, match=r"out_proj cannot be adapted in mamba"):
        small_workspace(base, target_modules=("out_proj",))
