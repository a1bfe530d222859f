"""A turn's end is found in the template that training rendered."""

import pytest
from transformers import AddedToken

from cloister.data.records import ChatRecord, Message
from cloister.tasks.build import build_task
from cloister.tasks.chat import CausalChat
from cloister.tasks.config import TaskConfig
from cloister.tasks.turn_end import TurnEnd, turn_end
from tests.support.models import word_tokenizer

LOOP = "{% for message in messages %}"
SAY = "{{ message['role'] }} {{ message['content'] }}"
END = "{% endfor %}"
ASK = "{% if add_generation_prompt %}assistant{% endif %}"

# Template, and what closes a turn: a special token or ordinary text.
TEMPLATES: dict[str, tuple[str, str | None, str]] = {
    "ChatML": (f"{LOOP}{SAY}<|im_end|>\n{END}{ASK}", "<|im_end|>", ""),
    "Gemma": (f"{LOOP}{SAY}<end_of_turn>\n{END}{ASK}", "<end_of_turn>", ""),
    "a space before it": (f"{LOOP}{SAY} <|im_end|>{END}{ASK}", "<|im_end|>", ""),
    "two of them": (f"{LOOP}{SAY}<|im_end|><end_of_turn>{END}{ASK}", "<|im_end|>", ""),
    "the end of text": (f"{LOOP}{SAY}[SEP]{END}{ASK}", "[SEP]", ""),
    "ordinary text": (f"{LOOP}{SAY} ###\n{END}{ASK}", None, "###"),
    "nothing": (f"{LOOP}{SAY}\n{END}{ASK}", None, ""),
    "assistants alone": (
        f"{LOOP}{SAY}{{{{ '<|im_end|>' if message['role'] == 'assistant' else '' }}}}\n{END}{ASK}",
        "<|im_end|>",
        "",
    ),
}


def chat(template: str | None) -> CausalChat:
    tokenizer = word_tokenizer(frame=False)
    marks = [AddedToken(mark, special=True) for mark in ("<|im_end|>", "<end_of_turn>")]
    tokenizer.add_tokens(marks, special_tokens=True)
    tokenizer.chat_template = template
    task = build_task(TaskConfig(kind="causal-lm", max_length=32), (), tokenizer)
    assert isinstance(task, CausalChat)
    return task


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_closes_a_turn_is_found(name: str) -> None:
    template, token, text = TEMPLATES[name]
    task = chat(template)
    expected = None if token is None else task.tokenizer.convert_tokens_to_ids(token)
    assert turn_end(task) == TurnEnd(expected, text)


@pytest.mark.parametrize("name", [n for n, (_, token, _) in TEMPLATES.items() if token])
def test_what_closes_a_turn_is_among_what_is_learnt(name: str) -> None:
    task = chat(TEMPLATES[name][0])
    record = ChatRecord((Message("user", "rash"), Message("assistant", "fever")))
    example = task.encode(record)
    assert isinstance(example.target, tuple)
    assert turn_end(task).token in example.target


def test_the_plain_template_ends_a_turn_with_the_end_token() -> None:
    assert turn_end(chat(None)) == TurnEnd(token=3)


def test_a_template_that_renders_no_such_conversation_has_no_end() -> None:
    assert turn_end(chat("{{ raise_exception('no') }}")) == TurnEnd()
