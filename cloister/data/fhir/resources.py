"""Reads the resources of a FHIR file one by one, in bounded memory.

A file holds one or more bundles or resources, one after another (NDJSON). The entries of a bundle
are read one by one, so a bundle may have any size; the size of a resource is limited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from cloister.data.formats import COMPRESSED, FileForm
from cloister.data.json_buffer import JsonBuffer
from cloister.data.lines import open_text
from cloister.data.values import MOST_ROW_BYTES, Value
from cloister.errors import DataError
from cloister.files import why_no_file

ENDINGS = (".json", ".jsonl", ".ndjson")
_REMEDY = "correct the entry, or export the file again"

Element = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Found:
    """A resource of a FHIR file, and where it was found.

    Attributes:
        where: The file and its entry, for messages.
        resource: Its elements.
        full_url: The entry's `fullUrl`; None outside of a bundle.
    """

    where: str
    resource: Element
    full_url: str | None = None

    @property
    def kind(self) -> str:
        """Returns its `resourceType`; empty if it has none."""
        return text(self.resource.get("resourceType"))


def resources(path: Path) -> Iterator[Found]:
    """Yields every resource of a file, including those in bundles and in bundles of bundles.

    Args:
        path: The file, which ends in `.json`, `.jsonl` or `.ndjson`, also with `.gz`.

    Raises:
        DataError: The file is missing, empty or not JSON, or a resource is larger than
            `MOST_ROW_BYTES` or has no `resourceType`.
        OSError: It cannot be read.
    """
    if (why := why_no_file(path)) is not None:
        raise DataError(f"{path}: {why}; correct the path")
    name = PurePath(path.name.lower())
    is_gzip = name.suffix == COMPRESSED
    if (PurePath(name.stem) if is_gzip else name).suffix not in ENDINGS:
        raise DataError(
            f"{path}: not one of {', '.join(ENDINGS)}, or one with {COMPRESSED}; export FHIR as "
            "JSON (XML is not read)"
        )
    number = 0
    with open_text(path, FileForm(kind="json", is_gzip=is_gzip)) as file:
        buffer = JsonBuffer(file)
        while mark := buffer.next():
            number += 1
            if mark != "{":
                raise DataError(
                    f"{path.name}, resource {number}: no JSON object begins here; {_REMEDY}"
                )
            yield from _document(buffer, path.name, number)
    if not number:
        raise DataError(f"{path}: empty; give a bundle, or one resource per line")


def text(value: Value) -> str:
    """Returns a value that is a text; an empty text for any other value."""
    return value if isinstance(value, str) else ""


def element(value: Value) -> Element:
    """Returns a value that is an object; an empty object for any other value."""
    return value if isinstance(value, Mapping) else {}


def elements(value: Value) -> list[Element]:
    """Returns the objects in a list; an empty list for any other value."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return []
    return [one for one in value if isinstance(one, Mapping)]


def _document(buffer: JsonBuffer, name: str, number: int) -> Iterator[Found]:
    """Yields what one object of the file holds: a resource, or the entries of a bundle."""
    where = f"{name}, resource {number}"
    members: dict[str, Value] = {}
    begun, streamed = buffer.taken, False
    separator = "{"
    while separator != "}":
        buffer.place += 1
        if separator == "{" and buffer.next() == "}":
            break
        key = buffer.value(where)
        if not isinstance(key, str) or buffer.next() != ":":
            raise DataError(f"{where}: no valid JSON object (a name and : are needed); {_REMEDY}")
        buffer.place += 1
        if key in members or (key == "entry" and streamed):
            raise DataError(f"{where}: duplicate key {key[:40]!a}; {_REMEDY}")
        if key == "entry" and buffer.next() == "[":
            before = buffer.taken
            yield from _entries(buffer, name)
            begun += buffer.taken - before
            streamed = True
        else:
            members[key] = buffer.value(where)
            if buffer.taken - begun > MOST_ROW_BYTES:
                raise DataError(
                    f"{where}: longer than {MOST_ROW_BYTES >> 20} MiB, the most that a resource "
                    "may hold; split it"
                )
        separator = buffer.next()
        if separator not in (",", "}"):
            raise DataError(f"{where}: damaged: neither , nor }} follows an element; {_REMEDY}")
    buffer.place += 1
    found = Found(where, members)
    if not found.kind:
        raise DataError(f"{where}: has no resourceType, so this is no FHIR; {_REMEDY}")
    if found.kind != "Bundle":
        if streamed:
            members["entry"] = None  # a resource type whose `entry` is not a bundle's, such as List
        yield found


def _entries(buffer: JsonBuffer, name: str) -> Iterator[Found]:
    """Yields the resources of a bundle's entries; the buffer is at their opening bracket."""
    number, separator = 0, "["
    while separator != "]":
        buffer.place += 1
        if separator == "[" and buffer.next() == "]":
            break
        number += 1
        where = f"{name}, entry {number}"
        yield from _of_entry(buffer.value(where), where)
        separator = buffer.next()
        if separator not in (",", "]"):
            raise DataError(f"{where}: damaged: neither , nor ] follows it; {_REMEDY}")
    buffer.place += 1


def _of_entry(entry: Value, where: str) -> Iterator[Found]:
    """Yields the resource of an entry, or all resources of the bundle in it."""
    waiting = [(element(entry), where)]
    while waiting:
        one, at = waiting.pop()
        resource = one.get("resource")
        if not isinstance(resource, Mapping):
            continue  # an entry may be a request, or the outcome of a search
        found = Found(at, resource, text(one.get("fullUrl")) or None)
        if found.kind != "Bundle":
            if not found.kind:
                raise DataError(f"{at}: has no resourceType, so this is no FHIR; {_REMEDY}")
            yield found
            continue
        inner = elements(resource.get("entry"))
        waiting += [(e, f"{at}.{n}") for n, e in reversed(list(enumerate(inner, 1)))]
