"""Finds the characters of a rendered conversation that the assistant would write.

Exactly the text that a model must generate after the template's generation prompt is learnt:

1. If the template has `{% generation %}` marks: the marked text.
2. If it renders turn by turn, so that the beginning of a conversation is rendered like the
   beginning of the whole: every turn of the assistant, from its generation prompt to its end.
3. If it renders an earlier turn differently once others follow (Qwen 3 and gpt-oss leave earlier
   thinking out): only the last turn. The earlier turns are its context, rendered as when a model
   is to answer. So a conversation stays one sequence.

A generation prompt may open a block that the rendered turn lacks (DeepSeek-R1's `<think>`). Then
the learnt turn begins by closing it, after the record's own thinking where it has some.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cloister.data.records import Message
from cloister.errors import MisfitError

UNFOUND = "the assistant's turns cannot be found in its rendered conversation"
# Marks that open thinking: <think>, [THINK], <|START_THINKING|>, <seed:think>.
_OPENS = re.compile(
    r"<\|START_(?P<wide>\w*THINK\w*)\|>|<(?P<tag>[\w:]*think\w*)>|\[(?P<square>\w*THINK\w*)\]"
)

# An empty block of Gemma 4, opened and closed: <|channel>thought <channel|>.
_EMPTY = re.compile(r"\s*<\|(\w+)>\s*\w*\s*<\1\|>\s*")

# Renders messages; the flag: up to where the assistant's next turn begins.
Render = Callable[[Sequence[Message], bool], str]


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, with the parts that are learnt.

    Attributes:
        text: The whole text.
        spans: The characters that are learnt, as first and end positions, in order.
    """

    text: str
    spans: tuple[tuple[int, int], ...]


def rendered(render: Render, messages: Sequence[Message], marked: Rendered | None) -> Rendered:
    """Renders a conversation and finds the assistant's turns in it.

    Args:
        render: The template.
        messages: The turns that are read.
        marked: The spans that the template itself marks; None or empty: it marks none.

    Raises:
        MisfitError: The template does not render the conversation, or its turns cannot be found.
    """
    if marked is not None and marked.spans:
        return _without_prompts(render, messages, marked)
    whole = render(messages, False)
    places = [n for n, message in enumerate(messages) if message.role == "assistant"]
    spans = []
    for place in places:
        start = before(render, messages, place)
        after = render(messages[: place + 1], False).rstrip("\n")
        if not (whole.startswith(start) and whole.startswith(after)):
            return _last_turn(render, messages[: places[-1] + 1])
        spans.append((len(start), len(after)))
    return Rendered(whole, tuple(spans))


def _without_prompts(render: Render, messages: Sequence[Message], marked: Rendered) -> Rendered:
    """Removes the generation prompt from the marked spans, if each span has one turn."""
    places = [n for n, message in enumerate(messages) if message.role == "assistant"]
    if len(places) != len(marked.spans):
        return marked
    spans = []
    for place, (first, last) in zip(places, marked.spans, strict=True):
        start = before(render, messages, place)
        inside = marked.text.startswith(start) and first < len(start) <= last
        spans.append((len(start) if inside else first, last))
    return Rendered(marked.text, tuple(spans))


def before(render: Render, messages: Sequence[Message], place: int) -> str:
    """Returns the text before a turn of the assistant."""
    if place > 0:
        return render(messages[:place], True)
    # An empty conversation cannot be rendered: an opening turn begins where its content does.
    opening = render(messages[:1], False)
    return opening[: max(opening.rfind(messages[0].content.strip()), 0)].rstrip(" ")


def _last_turn(render: Render, messages: Sequence[Message]) -> Rendered:
    """Renders a conversation up to its last assistant turn, and marks only that turn as learnt."""
    start = before(render, messages, len(messages) - 1)
    whole = render(messages, False)
    if not whole.startswith(start):
        whole = start + _after_prompt(render, messages, start, whole)
    return Rendered(whole, ((len(start), len(whole.rstrip("\n"))),))


def _after_prompt(render: Render, messages: Sequence[Message], start: str, whole: str) -> str:
    """The last turn as it continues a prompt that opens a block which the rendered turn lacks."""
    shared = _shared(start, whole)
    opened, turn = start[shared:], whole[shared:]
    content = messages[-1].content
    # A made-up word, which a template has no reason to change, shows the text around a content.
    unique = _unlike(messages)
    probe = render([*messages[:-1], replace(messages[-1], content=unique)], False)
    lead, found, close = probe[shared:].partition(unique)
    if not (found and probe.startswith(whole[:shared])):
        raise _unfound()
    history = render(messages[:-1], False)
    prompt = start[len(history) if start.startswith(history) else shared :]
    tags = list(_OPENS.finditer(prompt))
    opening, closing = (tags[-1][0], _closing(tags[-1])) if tags else ("", "")
    is_open = bool(closing) and closing not in prompt[tags[-1].end() :]
    if is_open and closing in content:
        # The record's own thinking, which templates leave out: it begins after the prompt's mark.
        own = content.lstrip().removeprefix(opening)
        return (own.lstrip("\n") if opened.endswith("\n") else own).rstrip() + close
    if not (turn.startswith(lead) and turn.endswith(close) and len(lead + close) <= len(turn)):
        raise _unfound()
    body = turn[len(lead) :]
    if is_open:
        gap = "\n" if start.endswith("\n") else ""
        ending = lead if closing in lead else f"{gap}{closing}{2 * gap}{lead}"
        return ending + body
    if closing and prompt.rstrip().endswith(closing):
        return lead.replace(closing, "", 1) + body
    if not opened.strip() or _EMPTY.fullmatch(opened):
        return lead + body
    raise _unfound()


def _shared(one: str, two: str) -> int:
    """Length of two texts' common beginning; it never ends within a tag."""
    unequal = (place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    place = next(unequal, min(len(one), len(two)))
    opens = max(one.rfind("<", 0, place), one.rfind("[", 0, place))
    closes = max(one.rfind(">", 0, place), one.rfind("]", 0, place))
    return opens if opens > closes else place


def _closing(opening: re.Match[str]) -> str:
    if opening["wide"]:
        return f"<|END_{opening['wide']}|>"
    return f"</{opening['tag']}>" if opening["tag"] else f"[/{opening['square']}]"


def _unlike(messages: Sequence[Message]) -> str:
    """Returns a word that is in no turn."""
    number = 0
    while any(f"reply{number}" in message.content for message in messages):
        number += 1
    return f"reply{number}"


def _unfound() -> MisfitError:
    return MisfitError(
        UNFOUND,
        "task.chat_template: a turn of the assistant is not rendered as the continuation of its "
        "generation prompt, so it cannot be found; set a template that renders turn by turn",
    )
