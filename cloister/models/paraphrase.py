"""Texts said in other words by a causal language model of this machine; nothing is fetched.

The model must be public, or trained on other records than those it rewrites: what it learnt of one
record it may write into another's copy, and the privacy units would be coupled.
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
# For a base without a chat template, which goes on with what it reads.
_CONTINUED = {False: "Text: {text}\nThe same in other words: ", True: "原文：{text}\n换一种说法："}
# Holtzman et al. 2020 (arXiv:1904.09751), section 4: from here on sampled text is no longer bland.
_NUCLEUS = 0.95
# A reply of other lengths, over the text's characters, says something else or nothing.
_SHORTEST, _LONGEST = 0.4, 2.5
# Tokens of a reply beside as many as the text has, twice: what a model opens with.
_OPENING = 16


@dataclass(frozen=True)
class Paraphraser:
    """A model that says texts in other words.

    Attributes:
        model: With its language-modelling head.
        tokenizer: Its own.
        sha256: Of its weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sha256: str

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Loads a model.

        Args:
            folder: Of a causal language model, with weights in safetensors; its code is not run.

        Raises:
            ModelFileError: There is none, or it cannot be read.
        """
        if not folder.is_dir():
            raise ModelFileError(
                f"--paraphrase: {folder} is no folder; give that of a causal language model on "
                "this machine"
            )
        sha256 = weights_sha256(folder)
        model = load_backbone(folder, ModelConfig(base=str(folder)), causal=True)
        return cls(model, load_tokenizer(folder), sha256)

    def __call__(self, text: str, seed: int) -> str | None:
        """Says a text in other words.

        Args:
            text: In any language; Chinese is asked for in Chinese.
            seed: Of what is sampled: on one machine equal texts and seeds give equal words.

        Returns:
            The new text; None where the text does not fit the model, or the reply is empty, the
            text itself, or so short or long that it says something else.
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
        """Token ids of what the model is asked, [1, T]."""
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
    """The first paragraph of a reply, without quotation marks around it; None where it is none."""
    found = reply.strip().split("\n\n")[0].strip().strip("\"“”「」'").strip()
    same = found.casefold() == text.strip().casefold()
    fits = _SHORTEST * len(text) <= len(found) <= _LONGEST * len(text)
    return found if found and fits and not same else None
