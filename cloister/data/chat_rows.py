"""Reads conversations in the usual forms of data sets: turns, pairs, ShareGPT, Alpaca, prompts.

Each row is read alone, so whether it can be used depends on that row only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast, get_args

from cloister.data.cells import misfit, whole
from cloister.data.records import Message, Role
from cloister.data.values import Row, Value, kind_of
from cloister.errors import MisfitError

# Columns of a preference: a prompt, and the better and the worse reply to it.
PAIR = ("prompt", "chosen", "rejected")
# Columns of the other forms: ShareGPT's turns, a prompt with its completion, Alpaca's.
OTHERS = ("conversations", "completion", "instruction", "input", "output", "system", "history")
# ShareGPT's names of speakers; any other name is taken as the role itself.
_SPEAKERS = {"human": "user", "gpt": "assistant", "observation": "tool"}
# The start of a list of objects that is written as text, as in a CSV file.
_LIST = re.compile(r"\s*\[\s*\{")


def turns_in(row: Row, where: str) -> tuple[Message, ...] | None:
    """Returns the turns of a row that has no column of turns, from the columns of another form.

    Args:
        row: Values by column: `conversations`; or `prompt` and `completion`; or `instruction`,
            `output` and, where there are any, `input`, `system` and `history`.
        where: The file and row, for messages.

    Returns:
        The turns; None: the row has the columns of none of these forms.

    Raises:
        MisfitError: A column of the form cannot be used.
    """
    if row.get("conversations") is not None:
        return turns_of(row["conversations"], "conversations", where)
    if row.get("prompt") is not None and row.get("completion") is not None:
        return _either(row, "prompt", "user", where) + _either(
            row, "completion", "assistant", where
        )
    if row.get("instruction") is not None and row.get("output") is not None:
        return _alpaca(row, where)
    return None


def preferred(row: Row, name: str, where: str) -> tuple[Message, ...]:
    """Returns the turns of a prompt and one of the pair's replies; each may be a text or turns.

    Raises:
        MisfitError: One of them cannot be used, or the last turn is not a reply.
    """
    turns: tuple[Message, ...] = ()
    if row.get(PAIR[0]) is not None:
        turns = _either(row, PAIR[0], "user", where)
    turns += _either(row, name, "assistant", where)
    if turns[-1].role != "assistant" or not turns[-1].content.strip():
        raise misfit(where, f"{name} does not end with a reply of the assistant")
    return turns


def raw_text(text: str, column: str, where: str) -> str:
    """Returns a text that is learnt as a whole, in place of a conversation.

    Raises:
        MisfitError: The text is empty, or is a list written as text.
    """
    if not text.strip():
        raise misfit(where, f"{column} is empty; a conversation or a text is needed")
    if _LIST.match(text):
        raise misfit(
            where,
            f"{column} is a list written as text, so its brackets would be learnt; use JSONL or "
            "Parquet for conversations",
        )
    return whole(text, column, where)


def turns_of(turns: Value, column: str, where: str) -> tuple[Message, ...]:
    """Returns the turns of a conversation.

    `turns` is a list of objects with `role` and `content` (a text, or parts of text), or with
    ShareGPT's `from` and `value`.

    Raises:
        MisfitError: `turns` is another value, or empty.
    """
    if isinstance(turns, str) or not isinstance(turns, Sequence) or not turns:
        raise misfit(where, f"{column} must be a list of turns that is not empty")
    messages = []
    for number, turn in enumerate(turns, 1):
        role, content = _turn(turn)
        if role not in get_args(Role) or not isinstance(content, str):
            needed = f"needs a role ({', '.join(get_args(Role))}) and text as its content"
            raise MisfitError(f"a turn in {column} {needed}", f"{where}: turn {number} {needed}")
        messages.append(Message(cast(Role, role), whole(content, column, where)))
    return tuple(messages)


def _turn(turn: Value) -> tuple[Value, Value]:
    """Returns a turn's role and content; None where it has none."""
    if not isinstance(turn, dict):
        return None, None
    if "role" not in turn and "from" in turn:
        speaker = turn["from"]
        role = _SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else None
        return role, _joined(turn.get("value"))
    return turn.get("role"), _joined(turn.get("content"))


def _either(row: Row, name: str, role: Role, where: str) -> tuple[Message, ...]:
    """Returns the turns of a column: a text is one turn of `role`; else it is a list of turns."""
    value = row[name]
    if isinstance(value, str):
        return (Message(role, whole(value, name, where)),)
    return turns_of(value, name, where)


def _alpaca(row: Row, where: str) -> tuple[Message, ...]:
    asked, more, reply = (_text(row, name, where) for name in ("instruction", "input", "output"))
    turns = []
    if system := _text(row, "system", where):
        turns.append(Message("system", system))
    history = row.get("history")
    if history is not None and (isinstance(history, str) or not isinstance(history, Sequence)):
        raise misfit(where, f"history is {kind_of(history)}; a list of pairs of texts is needed")
    for pair in history or ():
        texts = pair if isinstance(pair, Sequence) and not isinstance(pair, str) else ()
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise misfit(where, "history holds a value that is not a pair of texts")
        question, answer = (whole(str(text), "history", where) for text in texts)
        turns += [Message("user", question), Message("assistant", answer)]
    question = f"{asked}\n\n{more}" if more else asked
    return (*turns, Message("user", question), Message("assistant", reply))


def _text(row: Row, name: str, where: str) -> str:
    """Returns a column's text; empty if the row has none."""
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise misfit(where, f"{name} is {kind_of(value)}; text is needed")
    return whole(value, name, where)


def _joined(content: Value) -> Value:
    """Returns a turn's content; parts of text (`{"type": "text", "text": …}`) are joined."""
    if isinstance(content, str) or not isinstance(content, Sequence) or not content:
        return content
    texts = []
    for part in content:
        is_text = isinstance(part, dict) and part.get("type") == "text"
        text = part.get("text") if is_text and isinstance(part, dict) else None
        if not isinstance(text, str):
            return content
        texts.append(text)
    return "".join(texts)
