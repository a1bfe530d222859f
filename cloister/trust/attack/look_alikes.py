"""Replaces characters by others that look the same to a reader but not to a tokenizer."""

from __future__ import annotations

from random import Random

# Cyrillic and Greek letters that look like Latin ones (Unicode's confusables, UTS #39).
LATIN = {
    **dict(zip("aceopxyijsABCEHIKMOPTXY", "асеорхуіјѕАВСЕНІКМОРТХУ", strict=True)),
    **dict(zip("vNZ", "νΝΖ", strict=True)),
}
_CHINESE_PAIRS = (
    *("未末", "土士", "己已", "人入", "大太", "日曰", "天夭", "千干", "午牛", "木本", "目自"),
    *("王玉", "了子", "白百", "刀力", "贝见", "处外", "今令", "乌鸟", "快块", "没设", "晴睛"),
    *("持特", "住往", "侯候", "拔拨", "免兔", "折拆", "幕暮", "喝渴", "买卖", "冷泠", "菜莱"),
    *("汤荡", "味昧", "送迭", "间问", "体休", "情清", "师帅", "准淮", "货贷", "价介", "员圆"),
)
# Chinese characters that differ by a stroke or two, both ways.
CHINESE = {
    one: other for pair in _CHINESE_PAIRS for one, other in ((pair[0], pair[1]), (pair[1], pair[0]))
}
# Every printable ASCII character has a wide form (Unicode block FF00).
WIDE = {chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)}
# Share of the characters with a look-alike that are replaced: about one per word, so the text stays
# easy to read.
SHARE = 0.25


def homoglyphs(text: str, random: Random) -> str | None:
    """Replaces some letters by look-alikes of another script, Chinese characters by similar ones.

    Returns:
        The text with at least one change; None: it has no character with a look-alike.
    """
    known = {**LATIN, **CHINESE}
    places = [place for place, letter in enumerate(text) if letter in known]
    if not places:
        return None
    taken = random.sample(places, max(1, round(SHARE * len(places))))
    letters = list(text)
    for place in taken:
        letters[place] = known[letters[place]]
    return "".join(letters)


def full_width(text: str, random: Random) -> str | None:
    """Writes Latin letters, digits and marks in the wide forms of Chinese and Japanese keyboards.

    Returns:
        The changed text; None: it has no such character.
    """
    new = "".join(WIDE.get(letter, letter) for letter in text)
    return None if new == text else new
