"""What encoding one record costs is bounded by public numbers, and the bounds change no token."""

import random
from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from cloister.data.records import ChatRecord, Message, Record, TextRecord, TokenRecord
from cloister.tasks import chat, one_text, token
from cloister.tasks.build import build_task, record_kind
from cloister.tasks.config import TaskConfig, TaskKind
from cloister.tasks.cut import (
    cut_text,
    cut_turns,
    cut_words,
    last_text,
    last_turns,
    most_characters,
    most_turns,
)
from cloister.tasks.largest import largest_records
from cloister.tasks.task import Task
from cloister.tasks.template import ChatTemplate
from tests.support.models import WORDS, word_tokenizer

KINDS: tuple[TaskKind, ...] = ("sequence-classification", "token-classification", "causal-lm")


def task_of(kind: TaskKind, max_length: int) -> Task:
    return build_task(TaskConfig(kind=kind, max_length=max_length), ("a", "b"), word_tokenizer())


def record_of(kind: TaskKind, words: list[str], turns: int = 4) -> Record:
    if kind == "sequence-classification":
        return TextRecord(" ".join(words), "a")
    if kind == "token-classification":
        return TokenRecord(tuple(words), ("B-a",) * len(words))
    each = max(len(words) // turns, 1)
    roles = ("user", "assistant")
    return ChatRecord(
        tuple(
            Message(roles[n % 2], " ".join(words[n * each : (n + 1) * each]) or "pain")  # type: ignore[arg-type]
            for n in range(turns)
        )
    )


HUGE: dict[str, list[str]] = {
    "words": ["pain"] * 10**6,
    "one word": ["a" * 5 * 10**6],
    "spaces": [" " * 5 * 10**6],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_no_token_changes_where_the_words_that_are_kept_end_within_the_bound(
    kind: TaskKind, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    max_length = draw.choice((2, 3, 8, 16, 40))

    def word() -> str:
        return draw.choice(WORDS) if draw.random() < 0.8 else "x" * draw.randint(1, 31)

    # A conversation's frame takes characters too: a turn of the plain template has "Assistant: ".
    words = [word() for _ in range(draw.choice((1, max_length, 3 * max_length, 1000)))]
    record = record_of(kind, words, draw.choice((2, 4, 20)))
    cut = task_of(kind, max_length).encode(record)
    monkeypatch.setattr(one_text, "cut_text", lambda text, length: text)
    monkeypatch.setattr(chat, "cut_text", lambda text, length: text)
    monkeypatch.setattr(token, "cut_words", lambda words, length: words)
    monkeypatch.setattr(chat, "cut_turns", lambda messages, length: messages)
    assert task_of(kind, max_length).encode(record) == cut


@pytest.mark.parametrize("max_length", [2, 16, 512])
def test_a_cut_keeps_a_beginning_and_no_more_than_is_looked_at(max_length: int) -> None:
    most = most_characters(max_length)
    for words in HUGE.values():
        text = " ".join(words)
        assert cut_text(text, max_length) == text[:most]
        kept = cut_words(tuple(words), max_length)
        assert 1 <= len(kept) <= most
        assert sum(map(len, kept)) <= most
        assert text.startswith(" ".join(kept))
        turns = (Message("user", "hello"), Message("assistant", text), Message("user", "no"))
        found = cut_turns(turns, max_length)
        assert found == (turns[0], Message("assistant", text[: most - 5]))
    many = tuple(Message("user", "a") for _ in range(1000))
    assert cut_turns(many, max_length) == many[: min(most_turns(max_length), most)]
    assert cut_words(("a",) * 3, max_length) == ("a",) * 3


def test_the_last_turns_are_kept_from_a_question_on() -> None:
    turns = tuple(Message(("user", "assistant")[n % 2], f"{n}") for n in range(101))  # type: ignore[arg-type]
    kept = last_turns(turns, 16)
    assert kept == turns[-31:]  # 32 at most, and the first of these is a reply
    assert last_turns(turns[:4], 16) == turns[:4]
    long = (*turns[:2], Message("user", "a" * 600), turns[1])
    assert last_turns(long, 16) == (Message("user", "a" * 511), turns[1])  # 32 characters a token
    assert last_text("ab" * 600, 16) == "ab" * 256


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Task, Record], dict[str, int]]:
    """How many characters a tokenizer gets, and how many turns and characters a template."""
    seen = {"characters": 0, "turns": 0, "rendered": 0}
    called, rendered = PreTrainedTokenizerBase.__call__, ChatTemplate.render

    def tokenize(self: PreTrainedTokenizerBase, text: object, **options: object) -> object:
        seen["characters"] += sum(map(len, text)) if isinstance(text, list) else len(str(text))
        return called(self, text, **options)  # type: ignore[arg-type]

    def render(self: ChatTemplate, messages: list[Message], *given: object, **named: object) -> str:
        seen["turns"] += len(messages)
        seen["rendered"] += sum(len(message.content) for message in messages)
        return rendered(self, messages, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", tokenize)
    monkeypatch.setattr(ChatTemplate, "render", render)

    def of(task: Task, record: Record) -> dict[str, int]:
        seen.update(dict.fromkeys(seen, 0))
        task.encode(record)
        return dict(seen)

    return of


@pytest.mark.parametrize("max_length", [2, 16, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_no_record_costs_more_than_those_that_are_measured(
    kind: TaskKind, max_length: int, looked_at: Callable[[Task, Record], dict[str, int]]
) -> None:
    task = task_of(kind, max_length)
    largest = [
        looked_at(task, record)
        for record in largest_records(record_kind(kind), task.labels, max_length)
    ]
    most = {key: max(one[key] for one in largest) for key in largest[0]}
    records = [record_of(kind, words) for words in HUGE.values()]
    if kind == "causal-lm":
        records += [record_of(kind, ["fever"] * 10_000, 1000)]
        records += [ChatRecord(tuple(Message("assistant", "no fever") for _ in range(1000)))]
        records += [ChatRecord((*[Message("assistant", "a")] * 2, Message("user", "b" * 10**6)))]
    for record in records:
        found = looked_at(task, record)
        assert all(found[key] <= most[key] for key in most), (found, most)
