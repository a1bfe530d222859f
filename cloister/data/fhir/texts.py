"""The text of a DocumentReference or Observation, by the mapping of docs/sql-and-fhir.md."""

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
# `status` and `docStatus` of what no longer holds (FHIR R4 and R5, the resources' value sets).
_GONE = frozenset({"entered-in-error", "superseded", "cancelled"})
_PLAIN, _HTML = "text/plain", ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(r"""\bcharset\s*=\s*"?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
# What stands before a page's text: what a document is, and a title that its body repeats.
_PROLOGUE = re.compile(r"\A\s*(?:<\?xml[^<>]*>\s*)?(?:<!doctype[^<>]*>)?", re.IGNORECASE)
_TITLE, _TITLE_END = (
    re.compile("<title[^<>]*>", re.IGNORECASE),
    re.compile("</title", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True)
class ResourceText:
    """A resource's text, and how it was written.

    Attributes:
        text: Not empty.
        content_type: Of an attachment; empty of an observation.
        encoding: Of an attachment, as Python calls it; likewise.
    """

    text: str
    content_type: str = ""
    encoding: str = ""


def text_of(resource: Element, *, with_code: bool = True) -> ResourceText:
    """The text of a resource.

    Args:
        resource: A DocumentReference or an Observation.
        with_code: Whether an observation's text begins with what its `code` says.

    Raises:
        LeftOutError: It has none that can be read without fetching anything.
    """
    if {text(resource.get("status")), text(resource.get("docStatus"))} & _GONE:
        raise LeftOutError("not-current")
    if resource.get("resourceType") == "Observation":
        return _observed(resource, with_code=with_code)
    return _document(resource)


def time_of(resource: Element) -> str | None:
    """When a resource is of, as it is written there; None: it does not say."""
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
    """What a CodeableConcept says: its text, else its first coding's display or code."""
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
    if not any(said):  # a number with a unit is no text to learn from
        raise LeftOutError("no-text")
    begun = [concept_words(element(resource.get("code")))] if with_code else []
    return ResourceText("\n".join(line for line in (*begun, *said) if line))


def _document(resource: Element) -> ResourceText:
    """The first plain text among a document's attachments, else the first page of HTML.

    They are forms of one document, so that one of them is enough.
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
    """A document's attachments; one that refers to a Binary in the resource is that Binary."""
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
            # The attachment's own type, where it gives one, has the charset.
            kind = text(one.get("contentType")) or text(inner.get("contentType"))
            one = {"contentType": kind, "data": inner.get("data")}
        yield one


def _decoded(data: str, charset: str) -> tuple[str, str] | None:
    """The text of base64 data, and its encoding; None where it is neither."""
    try:
        encoding = known_encoding(charset)
        # FHIR's base64Binary may hold white space, and no other character.
        raw = base64.b64decode("".join(data.split()), validate=True)
        found = raw.decode(encoding).removeprefix("\ufeff")
        found.encode("utf-8")  # UTF-7 gives halves of pairs, which no file of records may hold
        return found, encoding
    except (UsageError, binascii.Error, ValueError):
        return None


def _of_page(page: str) -> str:
    """The text of HTML, without the title of its head."""
    page = _PROLOGUE.sub("", page, count=1)
    begin = _TITLE.search(page)
    end = _TITLE_END.search(page, begin.end()) if begin else None
    if begin and end:
        page = page[: begin.start()] + page[page.find(">", end.start()) + 1 :]
    return without_markup(page)
