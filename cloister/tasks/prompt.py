"""A prompt around a text: words before and after it that a decoder reads together with it.

If both are too long, the text is cut and never the prompt: the words after the text ask the
question, and a classifier reads the last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from cloister.errors import UsageError
from cloister.tasks.config import SLOT
from cloister.tasks.cut import cut_text

# Fills the slot when the prompt's own tokens are counted.
_PROBE = "fever"


@dataclass(frozen=True)
class Prompt:
    """A prompt with one slot for the text.

    Attributes:
        before: The words before the text.
        behind: The words after the text.
    """

    before: str
    behind: str

    @classmethod
    def of(cls, template: str) -> Prompt:
        """Makes a prompt from its template, which contains the slot once (`TaskConfig`)."""
        before, _, behind = template.partition(SLOT)
        return cls(before, behind)

    def around(self, text: str) -> str:
        """Returns the prompt with a text in its slot."""
        return self.before + text + self.behind

    def encode(self, tokenizer: PreTrainedTokenizerBase, text: str, max_length: int) -> list[int]:
        """Returns the token ids of a text in the prompt.

        Args:
            tokenizer: A fast one.
            text: Any; its first characters are looked at (`cut_text`).
            max_length: Most tokens, more than the prompt itself takes.

        Returns:
            At most `max_length` token ids; if there are more, the text's last tokens are removed.
        """
        looked_at = cut_text(text, max_length)
        encoded: Mapping[str, Any] = tokenizer(
            self.around(looked_at), return_offsets_mapping=True, verbose=False
        )
        ids: list[int] = encoded["input_ids"]
        if len(ids) <= max_length:
            return ids
        tail = _tail(encoded["offset_mapping"], len(self.before) + len(looked_at))
        return [*ids[: max(max_length - tail, 0)], *ids[len(ids) - min(tail, max_length) :]]

    def check(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Refuses a prompt that leaves no room for a text.

        Args:
            tokenizer: A fast one.
            max_length: `task.max_length`.

        Raises:
            UsageError: The prompt takes `task.max_length` tokens or more, or the tokenizer gives no
                offsets.
        """
        if not tokenizer.is_fast:
            raise UsageError(
                "task.prompt: a fast tokenizer is needed, which says where in the prompt the "
                "text's tokens are; choose a base model that has one, or leave the prompt out"
            )
        ids = tokenizer(self.around(_PROBE), verbose=False)["input_ids"]
        if len(ids) > max_length:
            raise UsageError(
                f"task.prompt: with one word for the text it takes {len(ids)} tokens of this base, "
                f"and task.max_length is {max_length}: shorten the prompt, or raise task.max_length"
            )


def _tail(offsets: list[tuple[int, int]], end: int) -> int:
    """How many of the last tokens belong to the prompt: those that reach beyond the text's end, and
    special tokens, which have no width."""
    count = 0
    for start, stop in reversed(offsets):
        if start < stop <= end:
            break
        count += 1
    return count
