"""The coordinator's public language model, which writes variations of public texts.

A variation begins with a random number of a text's tokens, from none up to the stated part, and the
model writes the rest (the continuation of Xie et al. 2024, arXiv:2403.01749, for models that follow
no instructions). It reads public texts and the sites' noised votes alone: post-processing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloister.errors import ModelFileError
from cloister.models.config import LoraConfig, ModelConfig
from cloister.protocol.candidates import MOST_TEXT, CandidateText
from cloister.recipe.votes_config import LABEL, VotesConfig
from cloister.seeds import child_generator, child_seed
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig
from cloister.training.generation import Nucleus, beginning_ids, sampled_texts
from cloister.training.workspace import Workspace, open_workspace

# Most tokens of a text that a variation may begin with: those of the longest records here.
_READ = 512
# What a tokenizer decodes a part of a character to.
_BROKEN = "\ufffd"


@dataclass(frozen=True)
class TextGenerator:
    """A loaded language model, with the options of the study.

    Attributes:
        workspace: The model with its tokenizer.
        votes: How variations are written.
        seed: The study's seed.
    """

    workspace: Workspace
    votes: VotesConfig
    seed: int

    def variations(
        self, one: CandidateText, copies: int, *purpose: str | int
    ) -> list[CandidateText]:
        """Writes variations of a text, all with one beginning and with its label.

        Args:
            one: The text.
            copies: Number of variations.
            purpose: What they are for: equal purposes give equal variations on one machine.

        Returns:
            So many; where the model wrote nothing, the beginning or the text itself.
        """
        task, tokenizer = self._task, self.workspace.tokenizer
        ids = tokenizer(one.text, add_special_tokens=False, verbose=False)["input_ids"][:_READ]
        rng = child_generator(self.seed, "votes", "beginning", *purpose)
        first = int(rng.integers(0, int(np.floor(self.votes.kept * len(ids))) + 1))
        kept = str(tokenizer.decode(ids[:first], skip_special_tokens=True)).rstrip(_BROKEN)
        prompt = (self.votes.prompt or "").replace(LABEL, one.label)
        asked = beginning_ids(task, prompt + kept)[-self._room :]
        texts = sampled_texts(
            self.workspace.network,
            task,
            tokenizer,
            asked,
            copies=copies,
            most=self.votes.most_tokens,
            nucleus=Nucleus(self.votes.temperature, self.votes.top_p),
            seed=child_seed(self.seed, "votes", "text", *purpose),
        )
        joined = one.text[len(kept) :][:1].isspace() and one.text.startswith(kept)
        written = [_joined(kept, text, joined)[:MOST_TEXT] for text in texts]
        return [CandidateText(text or one.text, one.label) for text in written]

    @property
    def _task(self) -> CausalChat:
        task = self.workspace.task
        assert isinstance(task, CausalChat)
        return task

    @property
    def _room(self) -> int:
        """Most tokens of a prompt, so that what is written fits the model's positions."""
        positions = self.workspace.limits.positions
        return _READ if positions is None else max(1, positions - self.votes.most_tokens)


def _joined(kept: str, text: str, is_whole_word: bool) -> str:
    """Puts a beginning and its continuation together.

    Some tokenizers decode a continuation without the space before its first word.
    """
    space = " " if kept and is_whole_word and text and not text[0].isspace() else ""
    return (kept + space + text).strip()


def open_generator(votes: VotesConfig, seed: int, device: str | None) -> TextGenerator | None:
    """Loads the generator of a study; None: it has none.

    Raises:
        ModelFileError: It is missing, is no language model, or has too few positions.
    """
    if votes.generator is None:
        return None
    try:
        workspace = open_workspace(
            ModelConfig(base=votes.generator, sha256=votes.generator_sha256),
            LoraConfig(),
            TaskConfig(kind="causal-lm", max_length=2),
            (),
            seed,
            frozen_cache_gib=0.0,
            device=device,
        )
    except ModelFileError as error:  # it speaks of the base of a study that trains
        told = str(error).replace("model.base", "votes.generator")
        told = told.replace("model.sha256", "votes.generator_sha256")
        raise ModelFileError(told.replace(" for this task.kind", "")) from error
    positions = workspace.limits.positions
    if positions is not None and positions <= votes.most_tokens:
        raise ModelFileError(
            f"votes.generator: {votes.generator} reads {positions} positions, and "
            f"votes.most_tokens = {votes.most_tokens} leaves none for a beginning; set fewer"
        )
    return TextGenerator(workspace, votes, seed)
