"""What finding identifiers costs: in a hostile text twice as long, about twice as much."""

import time
from collections.abc import Iterator
from statistics import median

from benchmarks.figure import Figure
from cloister.data.scrub.find import find
from cloister.data.synthetic import hospital_notes

# Each begins what a rule looks for, again and again, and ends it seldom or never.
PIECES = (
    *("1", "1 ", "1-", "1.", "4 ", "4111 ", "a@", "a.", "@", "@a.", "http://", "www.", "+1", "+1 "),
    *("DE89", "DE89 ", "phone ", "mrn no ", "account is ", "::", "1:", "a:", "jan 1 ", "1 jan "),
    *("1/1/", "2021-1-1", "1年1月", "一", "一月", "月", "身份证", "QQ号", "(", "(415) ", "１", "é"),
)
SIZE = 2**16
MEGABYTE = 2**20


def figures(turns: int) -> Iterator[Figure]:
    ratios = {piece: median(_ratio(piece) for _ in range(turns)) for piece in PIECES}
    worst = max(ratios, key=lambda piece: ratios[piece])
    name = f"time of twice as long a text to find identifiers in: {worst!r}"
    yield Figure(name, ratios[worst], 2.8, "at most")
    text = " ".join(record.text for record in hospital_notes()[0])
    text *= 1 + MEGABYTE // len(text)
    yield Figure("s to find identifiers in 1 MB of notes", _seconds(text[:MEGABYTE]), 10, "at most")


def _ratio(piece: str) -> float:
    count = SIZE // len(piece)
    return _seconds(piece * 2 * count) / _seconds(piece * count)


def _seconds(text: str) -> float:
    begun = time.process_time()
    find(text)
    return time.process_time() - begun
