"""Paraphrases texts with a causal language model on this machine; nothing is fetched.

The model must be public, or trained on other records than those it rewrites: it may write what it
learnt from one record into another's copy, which would couple privacy units.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cloister.data.guess import is_spaceless
from cloister.errors import ModelFileError
from cloister.models.base import load_backbone, load_tokenizer, weights_sha256
from cloister.models.config import ModelConfig
from cloister.models.limits import limits_of

_ASKED = {
    False: "Say the following text in other words. Keep its meaning, its tone and its language. "
    "Answer with the new text alone.\n\n{text}",
    True: "请用不同的说法改写下面的文字，保持原意、语气和语言。只回答改写后的文字。\n\n{text}",
}
# For a base without a chat template, which continues the text.
_CONTINUED = {False: "Text: {text}\nThe same in other words: ", True: "原文：{text}\n换一种说法："}
# Nucleus sampling with the value of Holtzman et al. 2020 (arXiv:1904.09751), section 4.
_NUCLEUS = 0.95
# Least and greatest length of a reply over the text's: other replies have another meaning or none.
_SHORTEST, _LONGEST = 0.4, 2.5
# Tokens of a reply beyond twice those of the text: for the words with which a model begins.
_OPENING = 16


@dataclass(frozen=True)
class Paraphraser:
    """A model that paraphrases texts.

    Attributes:
        model: The model, with its language-modelling head.
        tokenizer: Its tokenizer.
        sha256: SHA-256 of its weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sha256: str

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Loads a model from a folder.

        Args:
            folder: A causal language model with weights in safetensors; code in it is not run.

        Raises:
            ModelFileError: There is no model, or it cannot be read.
        """
        if not folder.is_dir():
            raise ModelFileError(
                f"--paraphrase: {folder} is not a folder; give the folder of a causal language "
                "model on this machine"
            )
        sha256 = weights_sha256(folder)
        model = load_backbone(folder, ModelConfig(base=str(folder)), causal=True)
        return cls(model, load_tokenizer(folder), sha256)

    def __call__(self, text: str, seed: int) -> str | None:
        """Paraphrases a text by sampling a reply from the model.

        Args:
            text: A text in any language; a Chinese text gets a Chinese prompt.
            seed: Seed of the sampling: on one machine equal texts and seeds give equal results.

        Returns:
            The new text; None: the text does not fit the model, or the reply is empty, equal to the
            text, or too short or long to have the same meaning.
        """
        prompt = self._prompt(text)
        most = 2 * len(self.tokenizer(text)["input_ids"]) + _OPENING
        positions = limits_of(self.model).positions
        if positions is not None and prompt.shape[1] + most > positions:
            return None
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            generate: Any = self.model.generate
            output = generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=most,
                do_sample=True,
                top_k=0,
                top_p=_NUCLEUS,
                temperature=1.0,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
            )
        reply = str(self.tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True))
        return _usable(reply, text)

    def _prompt(self, text: str) -> torch.Tensor:
        """Returns the token ids of the prompt, [1, T]."""
        chinese = is_spaceless([text])
        if self.tokenizer.chat_template is None:
            written = _CONTINUED[chinese].format(text=text)
            return torch.tensor([self.tokenizer(written)["input_ids"]])
        turns = [{"role": "user", "content": _ASKED[chinese].format(text=text)}]
        asked = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return torch.tensor([self.tokenizer(str(asked), add_special_tokens=False)["input_ids"]])


def _usable(reply: str, text: str) -> str | None:
    """Returns a reply's first paragraph, without quotation marks; None: it is not usable."""
    found = reply.strip().split("\n\n")[0].strip().strip("\"“”「」'").strip()
    same = found.casefold() == text.strip().casefold()
    fits = _SHORTEST * len(text) <= len(found) <= _LONGEST * len(text)
    return found if found and fits and not same else None
