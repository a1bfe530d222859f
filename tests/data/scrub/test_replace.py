"""Within a unit, equal identifiers get the same placeholder, and different ones never do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.data.scrub.find import find
from cloister.data.scrub.marked import Score, score
from cloister.data.scrub.replace import Placeholders, Scrubber
from cloister.data.scrub.spans import Span
from cloister.data.values import Number


def scrubbed(value: object, unit: Placeholders | None = None) -> object:
    return Scrubber(find).value(value, Placeholders() if unit is None else unit)  # type: ignore[arg-type]


def test_one_identifier_has_one_number_within_a_unit_and_another_one_the_next() -> None:
    unit = Placeholders()
    assert scrubbed("打13812345678或13912345678", unit) == "打[PHONE_1]或[PHONE_2]"
    assert scrubbed("+86 139 1234 5678, a@b.com", unit) == "[PHONE_2], [MAIL_1]"
    assert scrubbed("+86 139 1234 5678") == "[PHONE_1]"


def test_conversations_lists_and_values_of_other_kinds() -> None:
    turns = [
        {"role": "user", "content": "call 13812345678"},
        {"role": "assistant", "content": [{"type": "text", "text": "138-1234-5678?"}]},
    ]
    assert scrubbed(turns) == [
        {"role": "user", "content": "call [PHONE_1]"},
        {"role": "assistant", "content": [{"type": "text", "text": "[PHONE_1]?"}]},
    ]
    assert scrubbed(None) is None
    assert scrubbed(Number("13812345678")) == Number("13812345678")


def test_words_of_a_sentence_are_replaced_as_wholes_and_keep_their_number() -> None:
    words = ["Call", "(415)", "555-2671", ",", "a@b.com", "!"]
    assert scrubbed(words) == ["Call", "[PHONE_1]", "[PHONE_1]", ",", "[MAIL_1]", "!"]
    assert scrubbed([]) == []


def test_what_was_scrubbed_stays_and_a_new_identifier_takes_no_old_number() -> None:
    text = "call [PHONE_1] or 13812345678, MRN: [MRN_1]"
    assert scrubbed(text) == "call [PHONE_1] or [PHONE_2], MRN: [MRN_1]"
    counting = Scrubber(find)
    once = counting.text("打13812345678, a@b.com, 2024年3月5日", Placeholders())
    assert counting.found == {"PHONE": 1, "MAIL": 1, "DATE": 1}
    assert counting.text(once, Placeholders()) == once
    assert counting.found.total() == 3


@settings(deadline=None)
@given(st.lists(st.sampled_from(["13812345678", "a@b.com", "SSN 536-90-4399", "hi", "，"])))
def test_nothing_found_is_left(parts: list[str]) -> None:
    text = " ".join(parts)
    new = Scrubber(find).text(text, Placeholders())
    assert "138" not in new
    assert "@" not in new
    assert "536" not in new
    assert new.count("hi") == parts.count("hi")


def test_recall_counts_what_is_covered_and_precision_what_was_marked() -> None:
    text = "Ann, 13812345678, 2024-03-05"
    marked = [Span(0, 3, "NAME", ""), Span(5, 16, "PHONE", "")]
    found = score([(text, marked), ("call 13812345678", [])], find)
    assert found == {
        "DATE": Score(marked=0, covered=0, found=1, right=0),
        "NAME": Score(marked=1, covered=0, found=0, right=0),
        "PHONE": Score(marked=1, covered=1, found=2, right=1),
    }
    assert found["PHONE"].to_json()["precision"] == 0.5
    assert found["NAME"].to_json()["recall"] == 0
    assert found["DATE"].to_json()["recall"] is None
