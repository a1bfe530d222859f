"""Cleans one text by rules, each a function of that text only, until nothing changes.

No rule here looks at another record, so the file's privacy units stay the same. The rules stop when
they change nothing, so cleaning a cleaned text again does not change it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloister.bounds import TURNING
from cloister.data.clean.markup import without_markup

# Most passes of all rules over one text. Escaped HTML needs three; a text that needs more was made
# to waste time.
MOST_PASSES = 8

_BREAKS = re.compile("\r\n|[\r\x85\u2028\u2029]")
# Controls except tab and line feed; soft hyphen; zero-width blank, word joiner, byte order mark;
# marks that turn the direction of writing; halves of surrogate pairs. Joiners stay: Persian,
# Indian scripts and emoji need them.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\ud800-\udfff"
    + "".join(sorted(TURNING))
    + "]"
)
# Full-width letters, digits and blank. Full-width punctuation is normal in Chinese and stays.
_WIDE = {
    **{code: code - 0xFEE0 for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B))},
    **{code: code - 0xFEE0 for code in range(0xFF41, 0xFF5B)},
    0x3000: 0x20,
}
_HALF_KANA = re.compile("[\uff66-\uff9f]+")
_BLANKS = re.compile(r"[^\S\n]+")
_AROUND_BREAKS = re.compile(r" ?\n ?")
_MANY_BREAKS = re.compile(r"\n{3,}")
# Lines that programs add, such as mail footers; a pattern must match a whole line.
_BOILERPLATE = re.compile(
    r"(?:sent from my (?:iphone|ipad|android|samsung|huawei|mobile|blackberry)[\w ]{0,30}"
    r"|get outlook for (?:ios|android)"
    r"|(?:click here to |to )?unsubscribe(?:,? click here)?"
    r"|(?:copyright |© ?|\(c\) ?)[\w ,.-]{0,60}all rights reserved"
    r"|this (?:e-?mail|message)(?: and any attachments?)? (?:is|are|may be) confidential.{0,500}"
    r"|发自我的 ?[\w ]{1,20}|发送自 ?[\w ]{1,20}手机"
    r"|[此该]用户(?:没有|未)(?:及时)?填写(?:评价|评论)(?:内容)?"
    r"|(?:用户)?未及时(?:做出|作出)?评价[，, ]{0,2}系统默认好评|系统默认(?:好评|评价)"
    r"|(?:点击)?(?:查看|展开)(?:更多|全文)"
    r"|版权所有.{0,60}|未经(?:授权|许可|允许)[，, ]{0,2}(?:不得|禁止|请勿)转载)"
    r"[.!。！…]{0,3}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class TextRule:
    """A rule that cleans a text.

    Attributes:
        name: Its name in the log and in `--skip`.
        what: What it does, in words.
        apply: The function from a text to the changed text.
    """

    name: str
    what: str
    apply: Callable[[str], str]


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _narrow(text: str) -> str:
    text = text.translate(_WIDE)
    return _HALF_KANA.sub(lambda kana: unicodedata.normalize("NFKC", kana.group()), text)


def _visible(text: str) -> str:
    return _CONTROLS.sub("", _BREAKS.sub("\n", text))


def _spaced(text: str) -> str:
    text = _AROUND_BREAKS.sub("\n", _BLANKS.sub(" ", text))
    return _MANY_BREAKS.sub("\n\n", text).strip()


def _personal(text: str) -> str:
    """Returns the text without the lines that programs add."""
    lines = text.split("\n")
    kept = [line for line in lines if not _BOILERPLATE.fullmatch(line.strip())]
    return text if len(kept) == len(lines) else "\n".join(kept)


RULES = (
    TextRule("html", "HTML tags removed, entities resolved", without_markup),
    TextRule("control", "control characters removed, line breaks made one kind", _visible),
    TextRule("unicode", "Unicode composed (NFC)", _composed),
    TextRule(
        "width", "full-width letters, digits, blanks made half, half-width kana full", _narrow
    ),
    TextRule("space", "runs of white space made one blank, two line breaks at most", _spaced),
    TextRule("boilerplate", "lines removed that programs write, in Chinese and English", _personal),
)
NAMES = tuple(rule.name for rule in RULES)
# The rules that keep one word one word.
WORD_RULES = tuple(rule for rule in RULES if rule.name in ("control", "unicode", "width"))


def cleaned(text: str, rules: Sequence[TextRule]) -> tuple[str | None, set[str]]:
    """Applies rules in their order, repeatedly until none changes the text.

    Args:
        text: Any text.
        rules: The rules.

    Returns:
        The text, and the names of the rules that changed it. The text is None if the
        rules still change it after `MOST_PASSES`.
    """
    names: set[str] = set()
    for _ in range(MOST_PASSES):
        before = text
        for rule in rules:
            after = rule.apply(text)
            if after != text:
                names.add(rule.name)
                text = after
        if text == before:
            return text, names
    return None, names
