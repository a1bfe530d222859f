"""Reads the text of a DocumentReference or Observation, as docs/sql-and-fhir.md maps them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cloister.data.clean.markup import without_markup
from cloister.data.encodings import known_encoding
from cloister.data.fhir.patients import LeftOutError
from cloister.data.fhir.resources import Element, element, elements, text
from cloister.errors import UsageError

KINDS = ("DocumentReference", "Observation")
# Values of `status` and `docStatus` of invalid resources (value sets of FHIR R4 and R5).
_GONE = frozenset({"entered-in-error", "superseded", "cancelled"})
_PLAIN, _HTML = "text/plain", ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(r"""\bcharset\s*=\s*"?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
# Removed before a page's text: the document type, and a title that the body repeats.
_PROLOGUE = re.compile(r"\A\s*(?:<\?xml[^<>]*>\s*)?(?:<!doctype[^<>]*>)?", re.IGNORECASE)
_TITLE, _TITLE_END = (
    re.compile("<title[^<>]*>", re.IGNORECASE),
    re.compile("</title", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True)
class ResourceText:
    """The text of a resource, and how it was encoded.

    Attributes:
        text: Not empty.
        content_type: The attachment's type; empty for an observation.
        encoding: Python's name of the attachment's encoding; empty for an observation.
    """

    text: str
    content_type: str = ""
    encoding: str = ""


def text_of(resource: Element, *, with_code: bool = True) -> ResourceText:
    """Returns the text of a resource.

    Args:
        resource: A DocumentReference or an Observation.
        with_code: Whether an observation's text begins with the words of its `code`.

    Raises:
        LeftOutError: The resource has no text that can be read without fetching anything.
    """
    if {text(resource.get("status")), text(resource.get("docStatus"))} & _GONE:
        raise LeftOutError("not-current")
    if resource.get("resourceType") == "Observation":
        return _observed(resource, with_code=with_code)
    return _document(resource)


def time_of(resource: Element) -> str | None:
    """Returns a resource's time, as it is written there; None: it has none."""
    period = element(resource.get("effectivePeriod"))
    for value in (
        resource.get("date"),
        resource.get("effectiveDateTime"),
        resource.get("effectiveInstant"),
        period.get("start"),
        resource.get("issued"),
    ):
        if found := text(value):
            return found
    return None


def concept_words(concept: Element) -> str:
    """Returns the words of a CodeableConcept: its text, else its first coding's display or code."""
    if found := text(concept.get("text")).strip():
        return found
    for coding in elements(concept.get("coding")):
        if found := (text(coding.get("display")) or text(coding.get("code"))).strip():
            return found
    return ""


def _observed(resource: Element, *, with_code: bool) -> ResourceText:
    said = [text(resource.get("valueString")).strip()]
    said += [text(note.get("text")).strip() for note in elements(resource.get("note"))]
    for part in elements(resource.get("component")):
        if value := text(part.get("valueString")).strip():
            name = concept_words(element(part.get("code")))
            said.append(f"{name}: {value}" if name else value)
    if not any(said):  # numbers with units are not text
        raise LeftOutError("no-text")
    begun = [concept_words(element(resource.get("code")))] if with_code else []
    return ResourceText("\n".join(line for line in (*begun, *said) if line))


def _document(resource: Element) -> ResourceText:
    """Returns the first plain text among a document's attachments, else the first HTML page.

    The attachments are forms of the same document, so one of them is enough.
    """
    found = list(_attachments(resource))
    of_type = {
        number: text(one.get("contentType")).partition(";")[0].strip().lower()
        for number, one in enumerate(found)
    }
    order = [n for n in of_type if of_type[n] == _PLAIN] + [
        n for n in of_type if of_type[n] in _HTML
    ]
    reason = "other-type" if found else "no-text"
    for number in order:
        data = text(found[number].get("data"))
        if not data:
            reason = "by-url" if text(found[number].get("url")) else "no-text"
            continue
        charset = _CHARSET.search(text(found[number].get("contentType")))
        read = _decoded(data, charset.group(1) if charset else "utf-8")
        if read is None:
            reason = "damaged"
            continue
        words, encoding = read
        words = (words if of_type[number] == _PLAIN else _of_page(words)).strip()
        if words:
            return ResourceText(words, of_type[number], encoding)
        reason = "no-text"
    raise LeftOutError(reason)


def _attachments(resource: Element) -> Iterator[Element]:
    """Yields a document's attachments; a reference to a contained Binary is replaced by it."""
    inside = {
        text(inner.get("id")): inner
        for inner in elements(resource.get("contained"))
        if text(inner.get("resourceType")) == "Binary"
    }
    for content in elements(resource.get("content")):
        one = element(content.get("attachment"))
        url = text(one.get("url"))
        inner = inside.get(url[1:]) if url.startswith("#") and not one.get("data") else None
        if inner is not None:
            # The attachment's own content type, if given, has the charset.
            kind = text(one.get("contentType")) or text(inner.get("contentType"))
            one = {"contentType": kind, "data": inner.get("data")}
        yield one


def _decoded(data: str, charset: str) -> tuple[str, str] | None:
    """Decodes base64 data; returns text and encoding, or None if the data is not valid."""
    try:
        encoding = known_encoding(charset)
        # FHIR's base64Binary may hold white space, and no other character.
        raw = base64.b64decode("".join(data.split()), validate=True)
        found = raw.decode(encoding).removeprefix("\ufeff")
        found.encode("utf-8")  # UTF-7 can give lone surrogates, which no file may hold
        return found, encoding
    except (UsageError, binascii.Error, ValueError):
        return None


def _of_page(page: str) -> str:
    """Returns the text of HTML, without the title in its head."""
    page = _PROLOGUE.sub("", page, count=1)
    begin = _TITLE.search(page)
    end = _TITLE_END.search(page, begin.end()) if begin else None
    if begin and end:
        page = page[: begin.start()] + page[page.find(">", end.start()) + 1 :]
    return without_markup(page)
