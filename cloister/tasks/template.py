"""Renders a chat template: it gets the messages, returns bounded text and reaches nothing else.

A conversation that cannot be rendered raises `MisfitError`: the record is left out of its unit, and
only the site itself gets the message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from jinja2 import Template, TemplateError

from cloister.bounds import listed
from cloister.data.records import Message
from cloister.errors import MisfitError, UsageError
from cloister.printable import one_line
from cloister.tasks.template_rules import MOST_SAID, UNREADABLE, check_template
from cloister.tasks.template_sandbox import (
    LONGEST_TEXT,
    MARKS,
    Names,
    Sandbox,
    bounded_range,
    counted_steps,
    fits,
)
from cloister.tasks.turns import Rendered

# A base's own template may print the date. A record's tokens must not change from day to day, so
# it always gets the day that Llama 3.2's template falls back on.
TODAY = date(2024, 7, 26)

_GENERATION = re.compile(r"\{%[-+]?\s*generation\b")

UNRENDERED = "its conversation cannot be rendered by the template"


@dataclass(frozen=True)
class ChatTemplate:
    """A template that may be rendered.

    Attributes:
        text: Jinja.
        is_own: Whether it is the base tokenizer's own. Such templates refuse conversations by
            `raise_exception`, keep names over loops and ask for the date; a recipe's may not
            (`cloister.tasks.template_rules`).

    Raises:
        UsageError: It is not valid Jinja, or it is a recipe's and breaks a rule.
    """

    text: str
    is_own: bool = False

    def __post_init__(self) -> None:
        if not self.is_own:
            check_template(self.text)
        _compiled(self.text, self.is_own)

    def render(
        self, messages: Sequence[Message], special_tokens: Mapping[str, object], *, generation: bool
    ) -> str:
        """Renders a conversation.

        Args:
            messages: Its turns.
            special_tokens: The tokenizer's, by name.
            generation: Whether the text is to end where the assistant's next turn begins.

        Raises:
            MisfitError: It cannot be rendered, or exceeds `MOST_STEPS` or `LONGEST_TEXT`.

        Guarantees:
            A function of template, messages and special tokens alone, on every day and machine.
        """
        return self._render(messages, special_tokens, generation, ("", ""))

    def marked(
        self, messages: Sequence[Message], special_tokens: Mapping[str, object]
    ) -> Rendered | None:
        """Renders a conversation, with what the template's `{% generation %}` blocks mark.

        Returns:
            None where the template has no such block.

        Raises:
            MisfitError: As `render`.
        """
        if not _GENERATION.search(self.text):
            return None
        number = 0
        while any(f"\ue000{number}" in message.content for message in messages):
            number += 1
        marks = (
            f"\ue000{number}\ue001",
            f"\ue000{number}\ue002",
        )  # private-use characters that no message has
        text = self._render(messages, special_tokens, False, marks)
        plain, spans = "", []
        for piece in text.split(marks[0]):
            inside, found, after = piece.partition(marks[1])
            if found:
                spans.append((len(plain), len(plain) + len(inside)))
            plain += inside + after
        return Rendered(plain, tuple(spans))

    def _render(
        self,
        messages: Sequence[Message],
        special_tokens: Mapping[str, object],
        generation: bool,
        marks: tuple[str, str],
    ) -> str:
        values = {
            **special_tokens,
            **dict(zip(MARKS, marks, strict=True)),
            "messages": [{"role": self._role(m), "content": m.content} for m in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": generation,
        }
        try:
            with counted_steps():
                return _text(_compiled(self.text, self.is_own), values)
        except Exception as error:  # a template may raise any exception
            roles, why = listed([m.role for m in messages]), one_line(str(error), MOST_SAID)
            raise MisfitError(
                UNRENDERED,
                f"task.chat_template: turns of {roles} cannot be rendered ({why}); set a "
                "template that takes such conversations, or leave them out of the data",
            ) from error

    def _role(self, message: Message) -> str:
        """A turn's role; a developer's is the system's where the template knows no developer."""
        known = message.role != "developer" or "developer" in self.text
        return message.role if known else "system"


def _text(template: Template, values: Mapping[str, object]) -> str:
    pieces, length = [], 0
    for piece in template.generate(values):
        length += len(piece)
        fits(length if length > LONGEST_TEXT else len(piece))
        pieces.append(piece)
    return "".join(pieces)


@lru_cache(maxsize=8)  # depends on the text alone; two studies have two or three templates
def _compiled(text: str, is_own: bool) -> Template:
    names: dict[str, object] = {"range": bounded_range}
    if is_own:
        names |= {"namespace": Names, "raise_exception": _raise, "strftime_now": _today}
    try:
        return Sandbox(names).from_string(text)
    except (TemplateError, RecursionError, *UNREADABLE) as error:
        why = one_line(str(error), MOST_SAID)
        raise UsageError(
            f"task.chat_template: it cannot be used as a template ({why}); correct it, or "
            "leave it out for the base's own"
        ) from error


def _raise(message: str) -> None:
    raise TemplateError(message)


def _today(form: str) -> str:
    return TODAY.strftime(form)
