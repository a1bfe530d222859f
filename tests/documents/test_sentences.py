"""Passages end at sentences, and none is longer than the base reads."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.documents.sentences import passages, sentences
from tests.support.examples import tries

MARKS = ["word ", "One. ", "Two! ", "3.5 ", "好", "。", "！”", "他说", "\n\n", "  ", "e.g. x", "？"]
texts = st.lists(st.sampled_from(MARKS), max_size=60).map("".join)


def count(text: str) -> int:
    """A token a Chinese character, and a token a word."""
    spaced = "".join(f" {c} " if ord(c) > 0x3000 else c for c in text)
    return len(spaced.split())


def cut(text: str, most: int) -> list[str]:
    return [text[span.start : span.end] for span in passages(text, most, count)]


@settings(max_examples=tries(100), deadline=None)
@given(text=texts)
def test_sentences_together_are_the_text(text: str) -> None:
    assert "".join(text[span.start : span.end] for span in sentences(text)) == text


@settings(max_examples=tries(150), deadline=None)
@given(text=texts, most=st.integers(1, 12))
def test_every_character_is_in_a_passage_that_is_read_whole(text: str, most: int) -> None:
    covered: set[int] = set()
    before = -1
    for span in passages(text, most, count):
        piece = text[span.start : span.end]
        assert piece == piece.strip() != ""
        assert count(piece) <= most
        assert span.end > before  # something new in each
        before = span.end
        covered.update(range(span.start, span.end))
    assert all(at in covered for at, character in enumerate(text) if not character.isspace())


def test_passages_end_where_sentences_do_and_overlap_by_one() -> None:
    text = "A b c. D e f. G h i. J k l."
    assert cut(text, 6) == ["A b c. D e f.", "G h i. J k l."]
    longer = "A b c d e f. G. H i j k l m. N o p q r s."
    assert cut(longer, 8) == ["A b c d e f. G.", "G. H i j k l m.", "N o p q r s."]


def test_chinese_sentences_end_without_blanks() -> None:
    text = "您可以退货。请保留收据！退款要多久？五个工作日。"
    assert cut(text, 13) == ["您可以退货。请保留收据！", "退款要多久？五个工作日。"]
    quoted = "他说：“好。”然后走了。"
    assert [quoted[s.start : s.end] for s in sentences(quoted)] == ["他说：“好。”", "然后走了。"]


def test_a_number_and_a_text_without_ends_are_cut_at_blanks() -> None:
    assert cut("It is 3.5 metres.", 10) == ["It is 3.5 metres."]
    assert cut("a b c d e f g", 3) == ["a b c", "d e f", "g"]
    assert cut("好" * 7, 3) == ["好好好", "好好好", "好"]


def test_what_is_said_again_leaves_room_for_what_is_new() -> None:
    text = "a b c d e f g. Z. h i j k l m n o."
    assert cut(text, 8) == ["a b c d e f g. Z.", "h i j k l m n o."]
