"""Finds which tokens end a reply in the template that training used.

Training teaches the tokens behind a turn's content too (`<|im_end|>`, `<end_of_turn>`, `###`, …); a
base's `generation_config.json` often names its end of text alone, which a trained reply never
reaches. So a reply ends where training taught it to.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.data.records import ChatRecord, Message
from cloister.errors import MisfitError
from cloister.tasks.chat import CausalChat

# A turn's words, which no template writes by itself.
_CONTENT = "fever since monday"


@dataclass(frozen=True)
class TurnEnd:
    """The tokens that end a reply in a model's chat format.

    Attributes:
        token: Id of the special token that closes a turn; None where ordinary text does.
        text: The closing text where it is ordinary; empty where a token closes, or nothing.
    """

    token: int | None = None
    text: str = ""


def turn_end(task: CausalChat) -> TurnEnd:
    """Reads a turn's end off a rendered conversation.

    Returns:
        The first special token behind the content, else the text there without spaces around it;
        neither where the template writes nothing, or does not render a plain question and answer.
    """
    messages = (Message("user", "chest pain"), Message("assistant", _CONTENT))
    try:
        text, (start, end), tokens = task.last_turn(ChatRecord(messages))
    except MisfitError:
        return TurnEnd()
    content = text.rfind(_CONTENT, start, end)
    if content < 0:
        return TurnEnd()
    content += len(_CONTENT)
    special = task.tokenizer.added_tokens_decoder.keys() - {task.tokenizer.unk_token_id}
    for token, (first, last) in tokens:
        if content <= first < last <= end and token in special:
            return TurnEnd(token=token)
    return TurnEnd(text=text[content:end].strip())
