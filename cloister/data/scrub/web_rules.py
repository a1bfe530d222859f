"""Finds mail addresses, web addresses and network addresses."""

from __future__ import annotations

import ipaddress
import re

from cloister.data.scrub.spans import Rule

# Longest name before the @ (RFC 5321, section 4.5.3.1.1).
MOST_LOCAL = 64
# Fewest groups of an IPv6 address: a shorter one, such as ::1, identifies no person.
FEWEST_GROUPS = 3
_LOCAL = re.compile(r"[A-Za-z0-9À-ɏ._%+'&-]")
_TRAILING = ".,;:!?'"


def _mail(match: re.Match[str]) -> tuple[int, int, str] | None:
    """Extends a match from the @ to the left over the name."""
    text, at = match.string, match.start()
    start = at
    while start > max(0, at - MOST_LOCAL) and _LOCAL.match(text, start - 1):
        start -= 1
    while start < at and text[start] in "'.&":
        start += 1
    if start == at:
        return None
    return start, match.end(), text[start : match.end()].casefold()


def _url(match: re.Match[str]) -> tuple[int, int, str] | None:
    """Drops punctuation at the end, which belongs to the sentence."""
    found = match[0].rstrip(_TRAILING)
    while found.endswith(")") and found.count("(") < found.count(")"):
        found = found[:-1].rstrip(_TRAILING)
    if "." not in found and "//" not in found:
        return None
    return match.start(), match.start() + len(found), found


def _address(match: re.Match[str]) -> tuple[int, int, str] | None:
    found = match[0].rstrip(".:") if not match[0].endswith("::") else match[0]
    if ":" in found and sum(map(bool, found.split(":"))) < FEWEST_GROUPS:
        return None
    try:
        value = str(ipaddress.ip_address(found))
    except ValueError:
        return None
    return match.start(), match.start() + len(found), value


RULES = (
    Rule(
        "MAIL",
        re.compile(
            r"@(?:[A-Za-z0-9À-ɏ](?:[A-Za-z0-9À-ɏ-]{0,62})\.){1,8}(?:xn--[a-z0-9-]{2,59}|[A-Za-z]{2,24})"
        ),
        _mail,
    ),
    Rule(
        "URL",
        re.compile(
            r"(?<![A-Za-z])(?:(?:https?|ftp)://|www\.)"
            r"(?:[!#$%&'()*+,\-./0-9:;=?@A-Z_a-z~]++|[^\W_](?:[\w./-])*+)",
            re.IGNORECASE,
        ),
        _url,
    ),
    Rule(  # without a scheme, as short links are written: t.cn/Ab12
        "URL",
        re.compile(
            r"(?<![\w@.-])(?:[a-z0-9][a-z0-9-]{0,62}\.){1,4}"
            r"(?:com|cn|net|org|edu|gov|io|me|co|ly|cc|gl|info|uk|de|fr|jp|eu)/"
            r"[!#$%&'()*+,\-./0-9:;=?@A-Z_a-z~]++",
            re.IGNORECASE | re.ASCII,
        ),
        _url,
    ),
    Rule(
        "IP",
        re.compile(r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9])(?!\.[0-9])", re.ASCII),
        _address,
    ),
    Rule(
        "IP", re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]*+:)[0-9A-Fa-f:.]++(?!\w)", re.ASCII), _address
    ),
)
