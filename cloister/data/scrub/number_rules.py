"""Finds numbers that have a check digit or a form: cards, accounts, persons, telephones."""

from __future__ import annotations

import re

from cloister.data.scrub.check_digits import (
    IBAN_LENGTHS,
    is_card,
    is_iban,
    is_resident_id,
    is_ssn,
)
from cloister.data.scrub.spans import Rule

# Not inside of a longer number or a decimal fraction: no digit, and no digit and point, before it.
BEFORE = r"(?<![0-9])(?<![0-9]\.)"
AFTER = r"(?![0-9])"
# Fewest and most digits of an international number with its country code (ITU-T E.164).
FEWEST_DIGITS, MOST_DIGITS = 8, 15
# Country codes that are dropped, so that a number with and without its code is one value: China's
# before a mobile number, and North America's with a sign or separator.
_CODE = re.compile(r"(?:\+|00)?86(?=[ -]?1[3-9])|\+1(?=[ .(-]?[2-9])|1(?=[ .(-][2-9(])")


def digits_of(text: str) -> str:
    """Returns the digits of a folded text."""
    return "".join(c for c in text if "0" <= c <= "9")


def _card(match: re.Match[str]) -> tuple[int, int, str] | None:
    digits = digits_of(match[0])
    return (match.start(), match.end(), digits) if is_card(digits) else None


def _iban(match: re.Match[str]) -> tuple[int, int, str] | None:
    """Reads as many characters as the country's IBANs have, not counting blanks."""
    text, start = match.string, match.start()
    needed = IBAN_LENGTHS.get(match[0].upper()[:2])
    if needed is None:
        return None
    taken, place = "", start
    while place < len(text) and len(taken) < needed:
        character = text[place]
        if character.isascii() and character.isalnum():
            taken += character.upper()
        elif character not in " -" or text[place - 1] in " -":
            return None
        place += 1
    ends = place == len(text) or not (text[place].isascii() and text[place].isalnum())
    return (start, place, taken) if ends and is_iban(taken) else None


def _resident(match: re.Match[str]) -> tuple[int, int, str] | None:
    number = match[0].replace(" ", "").upper()
    return (match.start(), match.end(), number) if is_resident_id(number) else None


def _ssn(match: re.Match[str]) -> tuple[int, int, str] | None:
    if not is_ssn(match["area"], match["block"], match["serial"]):
        return None
    return match.start(), match.end(), digits_of(match[0])


def phone(match: re.Match[str]) -> tuple[int, int, str] | None:
    """Reads a telephone number: the match's group `number`, else the whole match."""
    name: int | str = "number" if "number" in match.re.groupindex else 0
    return match.start(name), match.end(name), digits_of(_CODE.sub("", match[name], count=1))


def _international(match: re.Match[str]) -> tuple[int, int, str] | None:
    count = len(digits_of(match[0]))
    return phone(match) if FEWEST_DIGITS <= count <= MOST_DIGITS else None


def _american(match: re.Match[str]) -> tuple[int, int, str] | None:
    # N11 is a service number, not an exchange (North American Numbering Plan).
    return None if match["exchange"].endswith("11") else phone(match)


CARDS = tuple(
    Rule("CARD", re.compile(BEFORE + form + AFTER), _card)
    for form in (
        r"[0-9]{12,19}",
        r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}",
        r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}\1[0-9]{1,3}",
        r"[0-9]{4}([ -])[0-9]{6}\1[0-9]{4,5}",
        r"[0-9]{6}([ -])[0-9]{10,13}",
    )
)
IBAN = Rule("IBAN", re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}(?=[ -]?[0-9A-Za-z])"), _iban)
RESIDENT = Rule(
    "RESIDENT_ID",
    re.compile(
        BEFORE + r"[1-9][0-9]{5} ?(?:18|19|20)[0-9]{2}[01][0-9][0-3][0-9] ?[0-9]{3}[0-9Xx]"
        r"(?![0-9A-Za-z])"
    ),
    _resident,
)
SSN = Rule(
    "SSN",
    re.compile(
        r"(?<![0-9])(?<![0-9][.-])(?P<area>[0-9]{3})(?P<dash>[ -])(?P<block>[0-9]{2})(?P=dash)"
        r"(?P<serial>[0-9]{4})(?![0-9])(?!-[0-9])"
    ),
    _ssn,
)
PHONES = (
    Rule(  # China, mobile, with or without the country's code
        "PHONE",
        re.compile(
            r"(?<![0-9])(?<![0-9][.-])(?:(?:\+|00)?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}"
            + AFTER
        ),
        phone,
    ),
    Rule(  # China, a line with its area's code: 010, 02x, 0xxx
        "PHONE",
        re.compile(
            r"(?<![0-9])(?<![0-9][.-])(?:\(0(?:10|2[0-9]|[3-9][0-9]{2})\)"
            r"|0(?:10|2[0-9]|[3-9][0-9]{2}))[ -]?[2-9][0-9]{6,7}(?:-[0-9]{1,4})?" + AFTER
        ),
        phone,
    ),
    Rule(  # any country, by its code
        "PHONE",
        re.compile(r"(?<![\w+])\+[1-9](?:[ .()-]{0,2}[0-9]){7,14}" + AFTER),
        _international,
    ),
    Rule(  # the same, dialled by 00, where a separator shows the country's code
        "PHONE",
        re.compile(r"(?<![\w.+-])00[1-9][0-9]{0,2}[ .-](?:[ .()-]{0,2}[0-9]){6,12}" + AFTER),
        _international,
    ),
    Rule(  # North America
        "PHONE",
        re.compile(
            r"(?<![0-9])(?<![0-9][.-])(?:\+?1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])"
            r"(?P<exchange>[2-9][0-9]{2})[ .-][0-9]{4}" + AFTER
        ),
        _american,
    ),
)
RULES = (RESIDENT, *CARDS, IBAN, SSN, *PHONES)
