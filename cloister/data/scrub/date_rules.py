"""Finds dates in figures and words, English and Chinese, that exist in the calendar."""

from __future__ import annotations

import re

from cloister.data.scrub.check_digits import is_date
from cloister.data.scrub.spans import Rule

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DAY = r"(?P<day>[0-3]?[0-9])(?P<ordinal>st|nd|rd|th)?"
_AFTER = r"(?![0-9A-Za-z年])"
_YEAR = r"(?P<year>(?:18|19|20)[0-9]{2})"
_START = r"(?<![0-9])(?<![0-9][./-])"
# These are also common words: they count only with a year, an ordinal or a capital letter.
_WORDS = ("may", "mar", "march")
_LEAP = 2000  # a leap year, which has every day: for dates without a year
_FIGURES = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "○": 0}
_CHINESE = r"[0-9]{1,2}|[一二三四五六七八九十]{1,3}"
_CHINESE_YEAR = r"(?P<year>[0-9]{4}|[0-9]{2}|[零〇○一二三四五六七八九]{4})"


def _span(
    match: re.Match[str], year: int | None, month: int, day: int | None
) -> tuple[int, int, str] | None:
    if not is_date(_LEAP if year is None else year, month, 1 if day is None else day):
        return None
    parts = ("-" if part is None else f"{part:02}" for part in (year, month, day))
    return match.start(), match.end(), "-".join(parts)


def _year_first(match: re.Match[str]) -> tuple[int, int, str] | None:
    return _span(match, int(match["year"]), int(match["month"]), int(match["day"]))


def _year_last(match: re.Match[str]) -> tuple[int, int, str] | None:
    """Reads day and month in either order; a year of two digits is from 1930 to 2029."""
    short = len(match["year"]) == 2
    year = int(match["year"]) + (1900 if match["year"] >= "30" else 2000) * short
    first, second = int(match["first"]), int(match["second"])
    return _span(match, year, first, second) or _span(match, year, second, first)


def _named(match: re.Match[str]) -> tuple[int, int, str] | None:
    word, named = match["month"], match.groupdict()
    month = MONTHS.index(word[:3].lower()) + 1
    year, day = named.get("year"), named.get("day")
    if word in _WORDS and year is None and named.get("ordinal") is None:
        return None
    return _span(match, int(year) if year else None, month, int(day) if day else None)


def _chinese(match: re.Match[str]) -> tuple[int, int, str] | None:
    named = match.groupdict()
    year = _chinese_year(named["year"]) if named.get("year") else None
    day = _chinese_number(named["day"]) if named.get("day") else None
    return _span(match, year, _chinese_number(named["month"]), day)


def _chinese_year(text: str) -> int:
    year = int("".join(str(_FIGURES.get(c, c)) for c in text))
    return year + (1900 if year >= 30 else 2000) * (len(text) == 2)


def _chinese_number(text: str) -> int:
    """Returns a Chinese number from 1 to 31 (十 is 10, 二十一 is 21); 0 for any other text."""
    if text.isdigit() and text.isascii():
        return int(text)
    tens, ten, ones = text.partition("十")
    if not ten:
        return _FIGURES[text] if len(text) == 1 else 0
    if len(tens) > 1 or len(ones) > 1 or "十" in ones:
        return 0
    return 10 * (_FIGURES[tens] if tens else 1) + (_FIGURES[ones] if ones else 0)


def _english(form: str) -> Rule:
    return Rule("DATE", re.compile(form, re.IGNORECASE), _named)


RULES = (
    Rule(  # 2024-03-05, 2024/3/5
        "DATE",
        re.compile(
            _START + _YEAR + r"(?P<dash>[-/.])(?P<month>[01]?[0-9])(?P=dash)(?P<day>[0-3]?[0-9])"
            r"(?![0-9])"
        ),
        _year_first,
    ),
    Rule(  # 5.3.2024, 03/05/2024, 3-5-2024, 3/5/24
        "DATE",
        re.compile(
            _START + r"(?P<first>[0-3]?[0-9])(?P<dash>[-/.])(?P<second>[0-3]?[0-9])(?P=dash)"
            r"(?P<year>(?:18|19|20)[0-9]{2}|(?<=/)[0-9]{2})(?![0-9])(?!/[0-9])"
        ),
        _year_last,
    ),
    # March 5, 2024; Mar. 5th; March 2024; 5 March 2024; the 5th of March
    _english(rf"(?<![A-Za-z]){_MONTH}\.? {{1,2}}(?:the )?{_DAY}(?:,? {{1,2}}{_YEAR})?" + _AFTER),
    _english(rf"(?<![A-Za-z]){_MONTH}\.?,? {{1,2}}(?:of )?{_YEAR}" + _AFTER),
    _english(rf"{_START}{_DAY} {{1,2}}(?:of (?:the )?)?{_MONTH}\.?(?:,? {{1,2}}{_YEAR})?" + _AFTER),
    Rule(  # 2024年3月5日, 三月五日, 3月5号
        "DATE",
        re.compile(
            rf"(?<![0-9])(?:{_CHINESE_YEAR} ?年 ?)?(?P<month>{_CHINESE}) ?月 ?(?P<day>{_CHINESE})"
            r" ?[日号]"
        ),
        _chinese,
    ),
    Rule(  # 2024年3月
        "DATE",
        re.compile(rf"(?<![0-9]){_CHINESE_YEAR} ?年 ?(?P<month>{_CHINESE}) ?月"),
        _chinese,
    ),
)
