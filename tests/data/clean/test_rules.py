"""Each rule changes what it should in Chinese and English texts, and ends."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloister.data.clean.rules import RULES, cleaned
from tests.support.examples import tries


@pytest.mark.parametrize(
    ("text", "expected", "names"),
    [
        ("<p>Fever</p><p>since&nbsp;Monday</p>", "Fever\n\nsince Monday", {"html", "space"}),
        ("头痛<br/>三天<b>了</b>", "头痛\n三天了", {"html"}),
        ("a &lt;b&gt;bold&lt;/b&gt; word", "a bold word", {"html"}),
        ("AT&amp;amp;amp;T", "AT&T", {"html"}),
        ("<script>alert('x')</script>hello", "hello", {"html"}),
        ("ＭＲＩ检查，２次，结果正常！", "MRI检查，2次，结果正常！", {"width"}),
        ("ｶﾞｰｾﾞ", "ガーゼ", {"width"}),
        ("cafe\u0301", "caf\u00e9", {"unicode"}),
        ("头\u200b痛\ufeff\x07 三天", "头痛 三天", {"control"}),
        ("pay\u202elater\u00ad", "paylater", {"control"}),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour", {"control"}),
        ("  a \t b\u00a0\u3000c \n\n\n\n d ", "a b c\n\nd", {"space", "width"}),
        ("很好吃\n发自我的 iPhone", "很好吃", {"boilerplate"}),
        ("此用户没有填写评价。", "", {"boilerplate"}),
        ("Thanks.\nSent from my iPhone", "Thanks.", {"boilerplate"}),
    ],
)
def test_a_rule_does_what_it_says(text: str, expected: str, names: set[str]) -> None:
    assert cleaned(text, RULES) == (expected, names)


@pytest.mark.parametrize(
    "text",
    [
        "if a<b and b>c then a < c",
        "temperature <38.5 and pulse >90 <unknown>",
        "AT&T; R&D &copy=1 &nonsense; <3",
        "open <script> and no end",
        "open <!-- and no end",
        "<title>unknown here</title>",
        "我觉得，“还行”！（真的）……①②",
        "نمی\u200cخواهم",  # a joiner that Persian needs
        "👩\u200d⚕️ doctor",
        "The patient sent from my iPhone a photo.",
        "he said: unsubscribe me, please",
    ],
)
def test_what_is_none_of_a_rule_s_business_stays(text: str) -> None:
    assert cleaned(text, RULES) == (text, set())


MARKUP = "< > </ & &amp; &lt; &#38; #38; ; <b> </p> <!-- --> <script> </script> unsubscribe x 头痛"
ODD = ("\u3000", "Ａ", "ｶ", "ﾞ", "e\u0301", "\u0958", "\r", "\n\n\n", " ", "\u200b", "\ud800", "\0")
PIECES = st.sampled_from([*MARKUP.split(), *ODD])


@settings(deadline=None, max_examples=tries(300))
@given(text=st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join))
@example("&#38;" * 3 + "lt;b>")
@example("&<!--></script><script>-->")
def test_a_clean_text_stays_as_it_is(text: str) -> None:
    found, _ = cleaned(text, RULES)
    if found is not None:
        assert cleaned(found, RULES) == (found, set())
        found.encode()


def test_what_never_settles_ends_without_a_text() -> None:
    assert cleaned("&#38;#38;#38;#38;#38;#38;#38;#38;#38;#38;#38;#38;#38;lt;", RULES)[0] is None


def test_hostile_markup_takes_linear_time() -> None:
    for piece in ("<script>", "<!--", "&amp;", "<", "&#", "<a ", "</"):
        cleaned(piece * 50_000, RULES)
