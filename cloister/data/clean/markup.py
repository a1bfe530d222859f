"""Removes HTML from a text: only known tags and entities, so that `a < b` and `AT&T` stay.

Text that is not a complete HTML tag is escaped before it is parsed, and unescaped after it: the
parser would otherwise take the text after an open `<` for a tag, and lose it.
"""

from __future__ import annotations

import re
from html.entities import html5
from html.parser import HTMLParser

# Tags that become a line break; tags that become a blank; tags that become nothing. Elements in
# which the parser reads tags as text (title, textarea, iframe) are left out on purpose.
_ENDING = (
    "address article aside blockquote br dd div dl dt fieldset figcaption figure footer form h1 h2 "
    "h3 h4 h5 h6 header hr li main nav ol p pre section table tbody tfoot thead tr ul"
)
_SPACING = "td th option"
_INLINE = (
    "a abbr audio b big body button caption center cite code col colgroup del em font head html i "
    "img input ins kbd label link mark meta q s samp select small source span strike strong sub "
    "sup tt u var video"
)
_BLOCKS, _CELLS = frozenset(_ENDING.split()), frozenset(_SPACING.split())
# Elements whose content is not text for a reader.
_HIDDEN = ("script", "style")
_NAMES = "|".join(sorted({*_BLOCKS, *_CELLS, *_INLINE.split(), *_HIDDEN}, key=len, reverse=True))
# Attributes need a value, so that `a <b and b> c` is not a tag.
TAG = re.compile(
    rf"</?(?P<name>{_NAMES})(?:\s+[\w:-]+\s*=[^<>]*|\s*/?)>|<!--", re.IGNORECASE | re.ASCII
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
# An & that was escaped several times.
_NESTED = re.compile(r"&(?:amp;)+")
_SPECIAL = re.compile(r"[<&]")


def without_markup(text: str) -> str:
    """Returns a text without HTML: no tags, block tags as line breaks, entities as characters.

    One call resolves one level: `&lt;b&gt;` becomes `<b>`, which the next call removes.
    """
    if "&" in text:
        text = _NESTED.sub("&", text)
    if "<" not in text and not _ENTITY.search(text):
        return text
    reader = _Text()
    reader.feed(_escaped(text))
    reader.close()
    return "".join(reader.found)


def _escaped(text: str) -> str:
    """Returns the text with each < and & escaped that begins neither a known tag nor an entity."""
    ends = {name: text.lower().rfind(f"</{name}>") for name in _HIDDEN}
    comment_end = text.rfind("-->")

    def kept(match: re.Match[str]) -> str:
        at = match.start()
        if match.group() == "&":
            entity = _ENTITY.match(text, at)
            name = entity.group()[1:] if entity else ""
            return "&" if name.startswith("#") or name in html5 else "&amp;"
        tag = TAG.match(text, at)
        if tag is None:
            return "&lt;"
        name = (tag.group("name") or "").lower()
        if not name:
            return "<" if at < comment_end else "&lt;"
        # A hidden element without an end tag would remove the rest of the text.
        return "&lt;" if name in _HIDDEN and at > ends[name] else "<"

    return _SPECIAL.sub(kept, text)


class _Text(HTMLParser):
    """Collects the text of HTML."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in _HIDDEN
        self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(self._hidden - (tag in _HIDDEN), 0)
        self._separate(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self._separate(tag)

    def _separate(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.found.append("\n")
        elif tag in _CELLS:
            self.found.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)
