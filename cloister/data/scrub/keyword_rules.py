"""Finds numbers without a form of their own, by the keyword before them."""

from __future__ import annotations

import re

from cloister.data.scrub.check_digits import is_date
from cloister.data.scrub.number_rules import digits_of, phone
from cloister.data.scrub.spans import Rule, group

# Fewest digits: a shorter number is an age, a room or a count.
FEWEST_DIGITS = 4
# The text that may be between a keyword and its number.
_BETWEEN = r"(?:[ :#=]|\.|is|was|no|number|为|是|号|码){0,6}"
_NUMBER = r"([A-Za-z]{0,4}-?[0-9][0-9A-Za-z-]{3,24})(?![0-9A-Za-z])"
_MEDICAL = (
    r"mrn|medical record|patient (?:id|no|number)|chart (?:no|number)|hospital (?:no|number)"
    r"|encounter (?:id|no|number)|病历号|病历编号|病案号|住院号|门诊号|就诊号|就诊卡号|登记号"
    r"|患者编号|患者ID|病人ID|病人编号"
)
_OTHER = (
    r"account|acct|card (?:no|number)|policy (?:no|number)|member(?:ship)? (?:id|no|number)"
    r"|student (?:id|no|number)|employee (?:id|no|number)|passport|driver'?s? licen[sc]e"
    r"|id (?:no|number|card)|账号|帐号|卡号|保单号|学号|工号|护照|驾驶证|医保卡|社保卡|会员号"
    r"|微信|QQ"
)
_PHONE = (
    r"phone|telephone|tel|cell|mobile|fax|call|dial|whatsapp|reach (?:me|us|him|her|them)"
    r"|电话|手机|联系方式|座机|传真|致电|拨打"
)
_BIRTH = r"dob|born|birth|birthday|birthdate|date of birth|生日|出生"


def _after(keywords: str, rest: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z])(?:{keywords}){rest}", re.IGNORECASE)


def _number(match: re.Match[str]) -> tuple[int, int, str] | None:
    return group(match) if len(digits_of(match[1])) >= FEWEST_DIGITS else None


def _digits(match: re.Match[str]) -> tuple[int, int, str]:
    return match.start(1), match.end(1), digits_of(match[1]) + "X" * (match[1][-1] in "Xx")


def _birth(match: re.Match[str]) -> tuple[int, int, str] | None:
    year, month, day = match[1][:4], match[1][4:6], match[1][6:]
    if not is_date(int(year), int(month), int(day)):
        return None
    return match.start(1), match.end(1), f"{year}-{month}-{day}"


RULES = (
    Rule("MRN", _after(_MEDICAL, _BETWEEN + _NUMBER), _number),
    Rule("ACCOUNT", _after(_OTHER, _BETWEEN + _NUMBER), _number),
    Rule(
        "PHONE",
        _after(_PHONE, r"[^0-9\n]{0,16}(?P<number>[0-9](?:[ .()-]{0,2}[0-9]){6,14})(?![0-9])"),
        phone,
    ),
    Rule(
        "SSN",
        _after(r"ssn|social security", _BETWEEN + r"([0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4})(?![0-9])"),
        _digits,
    ),
    Rule(  # also of 15 digits, which had no check digit, and with a typo
        "RESIDENT_ID",
        _after(r"身份证(?:号码?|件号)?", _BETWEEN + r"([0-9]{17}[0-9Xx]|[0-9]{15})(?![0-9])"),
        _digits,
    ),
    Rule(
        "DATE", _after(_BIRTH, r"(?: on|日期|年月|于)?" + _BETWEEN + r"([0-9]{8})(?![0-9])"), _birth
    ),
)
