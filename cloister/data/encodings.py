"""Detects the encoding of a text file by five rules.

1. A byte order mark means UTF-8 or UTF-16. Without one, NUL bytes at every second place only mean
   UTF-16 without a mark.
2. A file that is UTF-8 from its first byte to its last is UTF-8: text in another encoding that is
   not ASCII is almost never valid UTF-8.
3. Otherwise the file is read as GB18030, and the characters beyond ASCII are counted. If at least
   the share `LEAST_COMMON` of them is Chinese punctuation or one of about 250 very frequent Chinese
   characters, the file is GB18030. Chinese reviews have 0.63 to 0.65; Japanese in EUC-JP, read in
   this way, has 0.14, Korean in EUC-KR 0.03, accented Latin letters 0.
4. A file whose bytes beyond ASCII stand alone between ASCII (`LEAST_ALONE`), as accented letters
   do, is Latin-1; Windows-1252 where it has bytes that Latin-1 leaves to control characters.
5. Anything else is an error that asks for the encoding: a wrong guess changes texts silently.

The rules do not know Big5, Shift-JIS, EUC-KR or the Latin alphabets of other regions: name those.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cloister.data.lines import BOM, open_bytes
from cloister.errors import DataError, UsageError

_CHUNK = 2**20
# Characters beyond ASCII that rules 3 and 4 count: their shares are then known to 0.002.
LOOKED_AT = 65_536
LEAST_COMMON = 0.25
LEAST_ALONE = 0.8
# Share of NUL bytes at even or odd places from which a text is UTF-16: in a Chinese CSV each comma,
# digit and line break, and the whole header, has a NUL byte.
LEAST_NULS = 0.02
_COMMON = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作"
    "里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从"
    "想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头"
    "文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提"
    "的一是不了在人有我他這個們來為和國到說時會對着過發後種樣開實當還進經長無與機應戰問關點間業將兩頭體"
    "，。、；：？！“”‘’（）《》【】—…·　好很快餐吃送味道質量买買服务店元号號名男女姓病痛院药"
)
_ALONE = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
_BEYOND = re.compile(rb"[\x80-\xff]")
_BEYOND_TEXT = re.compile("[^\x00-\x7f]+")
# Python's codecs that are not for whole texts: names of hosts, and escapes in source code.
_NO_FILES = ("idna", "punycode", "unicode-escape", "unicode_escape", "raw-unicode-escape")
# First bytes of files that people rename instead of converting them.
_OTHER_FILES = {
    b"PK\x03\x04": "a ZIP archive, as workbooks of spreadsheets are",
    b"\xd0\xcf\x11\xe0": "a workbook or document of an old office program",
    b"%PDF-": "a PDF document",
}
# Names of encodings for messages, by Python's name.
NAMES = {
    "utf-8": "UTF-8",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16, little-endian",
    "utf-16-be": "UTF-16, big-endian",
    "gb18030": "GB18030",
    "latin-1": "Latin-1",
    "cp1252": "Windows-1252",
}


@dataclass(frozen=True)
class Encoding:
    """The encoding of a file, and how it is known.

    Attributes:
        name: Python's name.
        why: The rule that decided, or that the user gave it.
        line_endings: Number of lines that end with `LF`, `CRLF` or `CR`, for those that occur.
    """

    name: str
    why: str
    line_endings: dict[str, int]

    def __str__(self) -> str:
        return f"{NAMES.get(self.name, self.name)} ({self.why})"


def known_encoding(name: str, asker: str = "--encoding") -> str:
    """Returns Python's name of an encoding that the user gave.

    Args:
        name: As it was given.
        asker: The option or field that names it, for messages.

    Raises:
        UsageError: It is not an encoding of text that Python knows.
    """
    try:
        found = codecs.lookup(name)
        "text".encode(found.name)  # fails for codecs such as base64, which do not encode text
        if found.name in _NO_FILES:
            raise ValueError
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"{asker} {name}: unknown encoding; give utf-8, utf-16, gb18030, latin-1 or another "
            "that Python knows"
        ) from error
    return {"iso8859-1": "latin-1", "utf-8-sig": "utf-8"}.get(found.name, found.name)


def detect(path: Path, is_gzip: bool = False, given: str | None = None) -> Encoding:
    """Detects the encoding of a text file by reading all of it, in bounded memory.

    Args:
        path: The file.
        is_gzip: Whether it is compressed.
        given: Python's name of the encoding, if the user gave it; nothing is detected then.

    Raises:
        DataError: No rule decides, or bytes are not valid in the encoding that was given.
        OSError: It cannot be read.
    """
    if given is not None:
        endings = _decoded(path, is_gzip, given)
        if endings is None:
            raise DataError(
                f"{path}: not valid {NAMES.get(given, given)}, which --encoding names "
                f"({_where(path, is_gzip, given)}); name another, or correct the file"
            )
        return Encoding(given, "given", endings)
    name, why = _detected(path, is_gzip)
    endings = _decoded(path, is_gzip, name)
    if endings is None:
        raise DataError(
            f"{path}: begins as {NAMES[name]} ({why}), but is damaged in "
            f"{_where(path, is_gzip, name)}; correct it, or name its encoding (--encoding)"
        )
    return Encoding(name, why, endings)


def _detected(path: Path, is_gzip: bool) -> tuple[str, str]:
    """Returns the encoding by the first rule that decides, and that rule in words."""
    with open_bytes(path, is_gzip) as file:
        start = file.read(_CHUNK)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DataError(f"{path}: is UTF-32; save it as UTF-8")
    for mark, what in _OTHER_FILES.items():
        if start.startswith(mark):
            raise DataError(f"{path}: is {what}, whatever its name says; export its table as CSV")
    if start.startswith(BOM):
        return "utf-8", "its byte order mark says so"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", "its byte order mark says so"
    if (wide := _wide(start)) is not None:
        return wide, "every second byte of plain characters is NUL, and there is no mark"
    if b"\0" in start:  # refused at once: a compressed file may have gigabytes of NUL
        line = start.count(b"\n", 0, start.index(b"\0")) + 1
        raise DataError(
            f"{path}, line {line}: has a NUL byte, so it is not text in UTF-8; save the file as "
            "UTF-8, or correct the row"
        )
    if _decoded(path, is_gzip, "utf-8") is not None:
        return "utf-8", "all of its bytes are valid UTF-8"
    common, alone = _shares(path, is_gzip)
    if common >= LEAST_COMMON:  # even if damaged: another encoding would change its texts
        return "gb18030", f"not UTF-8, and {common:.0%} of it, read so, is common in Chinese"
    if alone >= LEAST_ALONE:
        why = f"{alone:.0%} of its bytes beyond ASCII stand alone, as accented letters do"
        if not _has_controls(path, is_gzip):
            return "latin-1", why
        if _decoded(path, is_gzip, "cp1252") is not None:
            return "cp1252", why
    raise DataError(
        f"{path}: no known encoding ({_where(path, is_gzip, 'utf-8')} is not UTF-8; "
        f"read as GB18030, {common:.0%} is common in Chinese; {alone:.0%} of its bytes beyond "
        "ASCII stand alone); a wrong guess would change texts: name its encoding (--encoding)"
    )


def _wide(start: bytes) -> str | None:
    """Returns UTF-16 without a mark, by the places of NUL bytes; None: it is not.

    The first character must have one: files of records begin with a brace or, nearly always, an
    ASCII letter.
    """
    even, odd = start[::2].count(0), start[1::2].count(0)
    least = LEAST_NULS * len(start) / 2
    # The other place has NUL bytes too: 一, one of the most frequent characters, is U+4E00.
    if max(even, odd) <= least or 0 in memoryview(start[: len(start) & ~1]).cast("H"):
        return None
    if odd > even and not start[1]:
        return "utf-16-le"
    if even > odd and not start[0]:
        return "utf-16-be"
    return None


def _decoded(path: Path, is_gzip: bool, name: str) -> dict[str, int] | None:
    """Returns a file's line endings under an encoding; None: the file is not valid in it."""
    decoder = codecs.getincrementaldecoder(name)("strict")
    pairs = feeds = returns = 0
    last = ""
    with open_bytes(path, is_gzip) as file:
        while True:
            chunk = file.read(_CHUNK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeError:
                return None
            pairs += text.count("\r\n") + (last == "\r" and text.startswith("\n"))
            feeds, returns = feeds + text.count("\n"), returns + text.count("\r")
            last = text[-1:] or last
            if not chunk:
                break
    found = {"LF": feeds - pairs, "CRLF": pairs, "CR": returns - pairs}
    return {ending: count for ending, count in found.items() if count}


def _shares(path: Path, is_gzip: bool) -> tuple[float, float]:
    """Returns two shares: of the characters beyond ASCII, read as GB18030, those that are common in
    Chinese; of the bytes beyond ASCII, those that have ASCII on both sides."""
    decoder = codecs.getincrementaldecoder("gb18030")("replace")
    counts: Counter[str] = Counter()
    beyond = alone = 0
    with open_bytes(path, is_gzip) as file:
        while chunk := file.read(_CHUNK):
            for run in _BEYOND_TEXT.findall(decoder.decode(chunk)):
                counts.update(run)
            beyond += len(_BEYOND.findall(chunk))
            alone += len(_ALONE.findall(chunk))
            if counts.total() > LOOKED_AT:
                break
    common = sum(count for character, count in counts.items() if character in _COMMON)
    return common / max(counts.total(), 1), alone / max(beyond, 1)


def _has_controls(path: Path, is_gzip: bool) -> bool:
    """Returns whether bytes occur that are controls in Latin-1 and letters in Windows-1252."""
    controls = bytes(range(0x80, 0xA0))
    with open_bytes(path, is_gzip) as file:
        while chunk := file.read(_CHUNK):
            if len(chunk.translate(None, controls)) != len(chunk):
                return True
    return False


def _where(path: Path, is_gzip: bool, name: str) -> str:
    """Returns the line of the first byte that is not valid in an encoding, in words."""
    with open_bytes(path, is_gzip) as file:
        return f"line {_first_bad_line(file, name)}"


def _first_bad_line(file: BinaryIO, name: str) -> int:
    decoder = codecs.getincrementaldecoder(name)("strict")
    line = 1
    while True:
        chunk = file.read(_CHUNK)
        try:
            line += decoder.decode(chunk, final=not chunk).count("\n")
        except UnicodeError as error:
            if not isinstance(error, UnicodeDecodeError):  # e.g. UTF-16 without its mark
                return line
            return line + error.object[: error.start].decode(name, "ignore").count("\n")
        if not chunk:
            return line
