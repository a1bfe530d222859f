"""How good the assistant is, before and after: on public questions, in the service's prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cloister as cl
from cloister.documents.frame import cited_in, question_of
from cloister.models.state import write_adapter
from cloister.service.library import Library, prompt_with
from cloister.service.reply_stream import Decoding
from cloister.serving.inputs import as_chat
from cloister.tasks.chat import CausalChat
from cloister.tasks.rouge import rouge_l
from cloister.training.generation import replies_to

# Tokens of a reply: a third more than the desks' longest answer has.
LONGEST = 48


@dataclass(frozen=True)
class Question:
    """A question of a public dialogue.

    Attributes:
        text: As it was asked.
        answer: What the desk wrote.
        fact: What a right answer holds.
    """

    text: str
    answer: str
    fact: str


@dataclass(frozen=True)
class Scores:
    """What the assistant did with some questions.

    Attributes:
        replies: In the questions' order.
        rouge_l: Mean ROUGE-L F-measure against the desk's answers, in 0…1.
        cited: The share of replies with the number of a passage that was shown.
        right: The share of replies with the fact.
    """

    replies: tuple[str, ...]
    rouge_l: float
    cited: float
    right: float


def before_and_after(
    run: Path, library: Library, asked: Sequence[Question]
) -> tuple[Scores, Scores]:
    """The assistant's scores with the base as it was, and with the run's adapter.

    Args:
        run: The finished run.
        library: The public desk's pages.
        asked: Public questions, at least one.
    """
    model = cl.load(run)
    after = _scores(model, library, asked)
    write_adapter(model.workspace.network, model.workspace.start)  # B at zero: the base as it was
    return _scores(model, library, asked), after


def _scores(model: cl.Model, library: Library, asked: Sequence[Question]) -> Scores:
    """Scores of replies to the service's own prompts, which are answered together."""
    task, how = model.workspace.task, Decoding(most_tokens=LONGEST)
    assert isinstance(task, CausalChat)
    chats = [as_chat(one.text, number) for number, one in enumerate(asked, 1)]
    hits = library.find_each([question_of(chat) for chat in chats])
    shown = [prompt_with(model, *both, how) for both in zip(chats, hits, strict=True)]
    network, tokenizer = model.workspace.network, model.workspace.tokenizer
    texts = tuple(replies_to(network, task, tokenizer, [p for p, _ in shown], LONGEST))
    sources = [cited_in(text, given) for text, (_, given) in zip(texts, shown, strict=True)]
    cited = [any(source.is_cited for source in found) for found in sources]
    right = [one.fact in text for one, text in zip(asked, texts, strict=True)]
    mean_rouge = rouge_l(texts, [one.answer for one in asked])
    return Scores(texts, mean_rouge, sum(cited) / len(cited), sum(right) / len(right))
