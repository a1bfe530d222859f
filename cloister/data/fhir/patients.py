"""Finds the patient of a resource: one name for all references to the same patient.

If one patient had two names, one person's records would be two privacy units, and ε would promise
less than it states. So all names that may be one patient's are merged: a patient's URL and id, and
those of the patients in `Patient.link`, which may form a circle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cloister.data.fhir.resources import Element, Found, element, elements, text
from cloister.data.values import Value
from cloister.errors import CloisterError

_PATIENT = re.compile(r"(?:^|/)(Patient/[A-Za-z0-9.-]{1,64})(?:/_history/[^/]*)?$")


class LeftOutError(CloisterError):
    """A resource that is left out of the records.

    Args:
        reason: One of `run.REASONS`.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Patients:
    """The patients of some files, with one name each.

    Args:
        system: The system of the identifier that names persons, such as a medical record number;
            None: references and ids name them.
    """

    def __init__(self, system: str | None = None) -> None:
        self._system = system
        self._parent: dict[str, str] = {}
        # By system and value of an identifier: its patient; empty if several patients have it.
        self._identified: dict[str, str] = {}
        self._chosen: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self.count = 0

    def add(self, found: Found) -> None:
        """Adds a `Patient` resource."""
        resource = found.resource
        own = [_canonical(found.full_url)] if found.full_url else []
        if identity := text(resource.get("id")):
            own.append(f"Patient/{identity}")
        if not own:
            return  # nothing can refer to it
        if own[0] not in self._parent:
            self.count += 1
        for link in elements(resource.get("link")):
            if other := text(element(link.get("other")).get("reference")):
                own.append(_canonical(other))
        for name in own:
            self._join(own[0], name)
        for system, value in _identifiers(resource):
            known = self._identified.setdefault(f"{system}|{value}", own[0])
            if known and self._root(known) != self._root(own[0]):
                self._identified[f"{system}|{value}"] = ""
            if system == self._system:
                # The first in order, if merged patients have several identifiers.
                self._chosen[own[0]] = min(value, self._chosen.get(own[0], value))

    def end(self) -> None:
        """Fixes every patient's name; call it after all patients were added."""
        for name in self._parent:
            root = self._root(name)
            known = self._names.get(root)
            if known is None or _order(name) < _order(known):
                self._names[root] = name
        if self._system is not None:
            chosen: dict[str, str] = {}
            for name, value in self._chosen.items():
                root = self._root(name)
                chosen[root] = min(value, chosen.get(root, value))
            self._names = chosen

    def person(self, resource: Element) -> tuple[str, bool]:
        """Returns the name of a resource's patient.

        Returns:
            The name, and whether the patient's own resource is in the files.

        Raises:
            LeftOutError: The resource names no patient, or one whose name cannot be determined.
        """
        subject = element(resource.get("subject"))
        reference = text(subject.get("reference"))
        if reference.startswith("#"):
            return self._contained(resource, reference[1:])
        if not reference:
            return self._logical([subject.get("identifier")], "no-patient")
        name = _canonical(reference)
        if name in self._parent:
            return self._name(self._root(name)), True
        is_patient = _PATIENT.fullmatch(name) is not None
        if is_patient and self._system is None:
            return name, False
        # A URN is defined only inside of its bundle, so it cannot name a person.
        missing = is_patient or name.startswith("urn:")
        raise LeftOutError("patient-missing" if missing else "not-a-patient")

    def _contained(self, resource: Element, identity: str) -> tuple[str, bool]:
        """Returns the name of a contained patient, who is identified by identifiers only."""
        for inner in elements(resource.get("contained")):
            if text(inner.get("id")) == identity and text(inner.get("resourceType")) == "Patient":
                return self._logical(list(elements(inner.get("identifier"))), "contained-patient")
        raise LeftOutError("patient-missing")

    def _logical(self, identifiers: list[Value], reason: str) -> tuple[str, bool]:
        """Returns the name of a patient by identifiers.

        Raises:
            LeftOutError: There is no identifier (with the given reason), no patient of the files
                has it, or several have it.
        """
        found = list(_identifiers({"identifier": [element(one) for one in identifiers]}))
        if not found:
            raise LeftOutError(reason)
        for system, value in found:
            if name := self._identified.get(f"{system}|{value}", ""):
                return self._name(self._root(name)), True
            if system == self._system:
                return value, False
        raise LeftOutError("patient-missing")

    def _name(self, root: str) -> str:
        if root not in self._names:
            raise LeftOutError("no-identifier")
        return self._names[root]

    def _root(self, name: str) -> str:
        while (parent := self._parent[name]) != name:
            self._parent[name] = name = self._parent[parent]
        return name

    def _join(self, one: str, other: str) -> None:
        for name in (one, other):
            self._parent.setdefault(name, name)
        small, large = sorted((self._root(one), self._root(other)))
        self._parent[large] = small


def _order(name: str) -> tuple[bool, str]:
    """Sorts ids first: all exports of a server share them, while a bundle's URL is often random."""
    return not name.startswith("Patient/"), name


def _canonical(reference: str) -> str:
    """Returns a reference without its version; a relative one of a patient is `Patient/ID`."""
    if reference[:4].lower() == "urn:":
        return reference.lower()
    short = _PATIENT.search(reference)
    if short is None:
        return reference
    # Two servers may use one id for two persons: they become one unit, which is protected more, not
    # less.
    return short.group(1)


def _identifiers(resource: Element) -> Iterator[tuple[str, str]]:
    """Yields system and value of each identifier that has both."""
    for one in elements(resource.get("identifier")):
        system, value = text(one.get("system")).strip(), text(one.get("value")).strip()
        if system and value:
            yield system, value
