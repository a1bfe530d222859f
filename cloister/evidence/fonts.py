"""Finds installed fonts that can show a text, so that no name becomes a row of boxes.

Matplotlib's own font, DejaVu, has no Chinese, Japanese or Korean characters. If a text needs them,
the fonts of this machine are searched. A character that no font has is written as its code point,
like `U+4E2D`, and the page says so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.font_manager import FontEntry, fontManager, get_font

SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
# A font of matplotlib that claims every character and draws a box for each.
NO_FONT = "Last Resort"
# The note on a page with characters that no font of the machine has.
ABSENT = (
    "Some names are written by code points, as in U+4E2D, because no font of the machine that made "
    "this page has their characters. With a font that has them (Debian: fonts-noto-cjk) the page "
    "shows them."
)


@dataclass(frozen=True)
class Fonts:
    """Fonts that together can show some texts.

    Attributes:
        more: Families to use after DejaVu, in turn.
        foreign: Characters that these fonts have and DejaVu lacks.
        absent: Characters that no installed font has.
    """

    more: tuple[str, ...] = ()
    foreign: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def families(self, text: str, first: str = SANS) -> list[str]:
        """Returns matplotlib's `family` for a text; one font if it has every character."""
        return [first, *self.more] if self.foreign & set(text) else [first]

    def written(self, text: str) -> str:
        """Returns the text with each absent character as its code point."""
        if not self.absent:
            return text
        runs = re.compile("[" + "".join(map(re.escape, sorted(self.absent))) + "]+")
        return runs.sub(lambda run: " ".join(f"U+{ord(c):04X}" for c in run[0]), text)


def literal(fonts: Fonts, text: str) -> str:
    """Escapes a text for matplotlib, where a dollar sign would begin a formula."""
    return fonts.written(text).replace("$", r"\$")


def fonts_for(texts: Iterable[str]) -> Fonts:
    """Looks for fonts that have every character of some texts.

    Args:
        texts: All texts that will be shown.
    """
    wanted = {c for text in texts for c in text if not c.isspace()}
    missing = wanted - _characters(fontManager.findfont(MONO))
    missing |= wanted - _characters(fontManager.findfont(SANS))
    foreign = frozenset(missing)
    chosen: list[str] = []
    for entry in sorted(fontManager.ttflist, key=_preference) if missing else ():
        if entry.name.startswith(NO_FONT):
            continue
        found = missing & _characters(entry.fname)
        if found and entry.name not in chosen:
            chosen.append(entry.name)
            missing -= found
        if not missing:
            break
    if chosen:  # no warnings about weights that a family lacks
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return Fonts(tuple(chosen), foreign - missing, frozenset(missing))


def _preference(entry: FontEntry) -> tuple[bool, bool, str]:
    """Sort key: upright regular faces first, since that face of a family is drawn."""
    return entry.style != "normal", entry.weight not in (400, "normal", "regular"), entry.name


def _characters(path: str) -> set[str]:
    """Returns the characters of a font file; empty if it cannot be read."""
    try:
        return {chr(code) for code in get_font(path).get_charmap()}
    except (OSError, RuntimeError, ValueError):
        return set()
