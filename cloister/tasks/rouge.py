"""ROUGE-L of generated replies (Lin 2004), for spaced scripts and for Chinese, Japanese, Korean."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A run of letters and digits, or one character of a script that writes no spaces.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)


class _Words:
    """The tokenizer that rouge-score asks for; its own drops everything but a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        """Words of a text, in lower case."""
        return _WORD.findall(text.lower())


def rouge_l(generated: Sequence[str], references: Sequence[str]) -> float:
    """Mean F-measure of the longest common subsequence of words, in 0…1.

    Args:
        generated: Replies.
        references: One for each reply.
    """
    from rouge_score.rouge_scorer import RougeScorer  # loads nltk and sklearn, for chats alone

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    scores = [
        scorer.score(reference, reply)["rougeL"].fmeasure
        for reply, reference in zip(generated, references, strict=True)
    ]
    return float(sum(scores) / max(len(scores), 1))
