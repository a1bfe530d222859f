"""A long text in a prompt is cut; the prompt's question stays."""

import pytest

from cloister.data.records import TextRecord
from cloister.errors import RecipeError, UsageError
from cloister.recipe import parse_document, parse_recipe, sent_document
from cloister.tasks.build import build_task
from cloister.tasks.config import TaskConfig
from cloister.tasks.label_words import label_tokens
from cloister.tasks.prompt import Prompt
from cloister.tasks.sequence import SequenceClassification
from tests.support.models import SPECIAL, WORDS, word_tokenizer
from tests.support.tokenizers import TOKENIZERS

LONG = "chest pain at rest and fever and cough since monday"
AROUND = "patient {text} has acute"


def task(prompt: str | None, max_length: int = 16, *, frame: bool = True) -> SequenceClassification:
    config = TaskConfig(max_length=max_length, prompt=prompt)
    built = build_task(config, ("a", "b"), word_tokenizer(frame=frame))
    assert isinstance(built, SequenceClassification)
    return built


def words(built: SequenceClassification, text: str) -> list[str]:
    vocabulary = [*SPECIAL, *WORDS]
    return [vocabulary[index] for index in built.encode(TextRecord(text, "a")).input_ids]


def test_a_text_stands_in_the_slot() -> None:
    assert words(task(AROUND), "fever") == ["[CLS]", "patient", "fever", "has", "acute", "[SEP]"]


@pytest.mark.parametrize("frame", [True, False])
def test_too_long_a_text_is_cut_and_never_the_prompt(frame: bool) -> None:
    found = words(task(AROUND, 7, frame=frame), LONG)
    assert len(found) == 7
    kept = ["chest", "pain"] if frame else ["chest", "pain", "at", "rest"]
    assert [w for w in found if w not in SPECIAL] == ["patient", *kept, "has", "acute"]
    assert (found[-1] == "[SEP]") == frame
    # Far beyond what is looked at of it, too.
    assert words(task(AROUND, 7, frame=frame), f"{LONG} " * 200) == found


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_end_of_the_prompt_is_kept_by_every_tokenizer(name: str) -> None:
    """The tokens behind the text are those of the whole, uncut prompt."""
    tokenizer = TOKENIZERS[name]()
    prompt = Prompt.of("Note: {text}\nfever or cough?")
    for repeats in (1, 3, 40):
        text = " ".join([LONG] * repeats)
        whole = tokenizer(prompt.around(text))["input_ids"]
        most = min(len(whole), 24)
        found = prompt.encode(tokenizer, text, most)
        assert len(found) <= most
        tail = len(tokenizer("\nfever or cough?", add_special_tokens=False)["input_ids"]) - 1
        assert found[-tail:] == whole[-tail:]
        assert found[:4] == whole[:4]


def test_what_is_cut_is_told() -> None:
    built = task(AROUND, 7)
    assert not built.is_cut("fever cough")
    assert built.is_cut("fever cough rash")  # with the prompt it is 8 tokens
    assert built.is_cut("a" * 1000)


@pytest.mark.parametrize(
    ("prompt", "said"), [("no slot", "0 times"), ("{text} and {text}", "2 times")]
)
def test_one_slot_is_needed(prompt: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"prompt: {said}"):
        TaskConfig(prompt=prompt)
    with pytest.raises(RecipeError, match=f"task.prompt: {said}"):
        parse_recipe(f'[task]\nprompt = "{prompt}"\n')


def test_other_braces_are_text_as_any_other() -> None:
    assert Prompt.of("{0} {{x}} {text} }").around("{text}") == "{0} {{x}} {text} }"


@pytest.mark.parametrize("kind", ["token-classification", "causal-lm"])
def test_other_tasks_have_none(kind: str) -> None:
    with pytest.raises(UsageError, match="only sequence-classification has it"):
        TaskConfig(kind=kind, prompt="{text}")


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(UsageError, match=r"takes 6 tokens of this base, and task\.max_length is 5"):
        task(AROUND, 5)


def test_a_recipe_without_one_keeps_its_digest() -> None:
    plain, asked = parse_recipe(""), parse_recipe("", ['task.prompt="Note: {text}?"'])
    assert '"prompt"' not in sent_document(plain)
    assert asked.digest() != plain.digest()
    assert parse_document(sent_document(asked)).task.prompt == "Note: {text}?"


def test_labels_are_read_as_they_would_be_written_behind_the_prompt() -> None:
    tokenizer = word_tokenizer()
    ids = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    labels = ("fever", "chest_pain")
    expected = [[ids["fever"]], [ids["chest"], ids["pain"]]]
    for prompt in (None, Prompt("", "has acute"), Prompt("", "has\n"), Prompt("has", "")):
        assert label_tokens(tokenizer, labels, prompt) == expected
    with pytest.raises(UsageError, match=r"no token of the label '   '"):
        label_tokens(tokenizer, ("   ",), None)
