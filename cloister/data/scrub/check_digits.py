"""Checks the numbers of cards, accounts and persons, by their check digits and forms."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

# Leading digits of issuers (first and last prefix of a range) and the lengths of their numbers;
# ISO/IEC 7812 prefixes as the networks publish them.
ISSUERS: tuple[tuple[int, int, range], ...] = (
    (4, 4, range(13, 20, 3)),  # Visa: 13, 16, 19
    (51, 55, range(16, 17)),  # Mastercard
    (2221, 2720, range(16, 17)),  # Mastercard
    (34, 34, range(15, 16)),  # American Express
    (37, 37, range(15, 16)),  # American Express
    (62, 62, range(16, 20)),  # UnionPay
    (6011, 6011, range(16, 20)),  # Discover
    (644, 649, range(16, 20)),  # Discover
    (65, 65, range(16, 20)),  # Discover, RuPay
    (300, 305, range(14, 20)),  # Diners Club
    (36, 36, range(14, 20)),  # Diners Club
    (38, 39, range(14, 20)),  # Diners Club
    (3528, 3589, range(16, 20)),  # JCB
    (2200, 2204, range(16, 20)),  # Mir
    (9792, 9792, range(16, 17)),  # Troy
    *((p, p, range(12, 20)) for p in (5018, 5020, 5038, 5893, 6304, 6759)),  # Maestro
    (6761, 6763, range(12, 20)),  # Maestro
)

# Length of an IBAN by its country: SWIFT's registry of IBAN formats (ISO 13616).
IBAN_LENGTHS: Mapping[str, int] = {
    country: length
    for length, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FK FO GL NL SD"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU MN XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ OM SO TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "LY PT ST"),
        (26, "IS TR"),
        (27, "BI DJ FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HU LB NI PL SV"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU YE"),
        (31, "MT SC"),
        (32, "LC"),
        (33, "RU"),
    )
    for country in countries.split()
}

# GB/T 2260: the first two digits of a resident's number, a province or an equivalent region.
PROVINCES = frozenset(
    {*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55)}
    | {*range(61, 66), 71, *range(81, 84)}
)
# GB 11643-1999: weights of the first 17 digits, and the last character by the sum modulo 11.
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_LAST = "10X98765432"
# The earliest year of birth of a person with a resident's number.
EARLIEST_YEAR = 1800
LATEST_YEAR = 2100


def is_card(digits: str) -> bool:
    """Returns whether digits are a payment card's: issuer's prefix, length, and Luhn's check."""
    fits = any(
        len(digits) in lengths and low <= int(digits[: len(str(low))]) <= high
        for low, high, lengths in ISSUERS
    )
    return fits and luhn(digits)


def luhn(digits: str) -> bool:
    """Returns whether digits pass Luhn's check (ISO/IEC 7812-1, annex B).

    Every second digit from the right is doubled; the sum of all digits must end in 0.
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Returns whether capital letters and digits are an IBAN: length and ISO 7064 check."""
    if len(text) != IBAN_LENGTHS.get(text[:2]) or not (text.isascii() and text.isalnum()):
        return False
    # Move the first four characters to the end, then replace letters by 10 to 35.
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def is_resident_id(text: str) -> bool:
    """Returns whether 18 characters are a Chinese resident's number: region, birth date, check."""
    if int(text[:2]) not in PROVINCES:
        return False
    if not is_date(int(text[6:10]), int(text[10:12]), int(text[12:14])):
        return False
    total = sum(w * int(d) for w, d in zip(_WEIGHTS, text[:17], strict=True))
    return text[17] == _LAST[total % 11]


def is_ssn(area: str, block: str, serial: str) -> bool:
    """Returns whether the parts can be a US social security number.

    No area is 000, 666 or 900 and above, and no part has only zeros (Social Security
    Administration, POMS RM 10201.035).
    """
    return area not in ("000", "666") and area < "900" and block != "00" and serial != "0000"


def is_date(year: int, month: int, day: int) -> bool:
    """Returns whether a calendar has the day, in a year that records of persons can have."""
    try:
        return EARLIEST_YEAR <= date(year, month, day).year <= LATEST_YEAR
    except ValueError:
        return False
