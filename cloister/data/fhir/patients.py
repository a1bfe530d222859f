"""Whose a resource is: every way in which a patient is referred to, made one name.

Were one patient two names, one person's records would be two privacy units, and ε would promise
less than it says. So names that may be one patient's are one: a patient's own URL and id, and those
of the patients that `Patient.link` names, in a circle or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cloister.data.fhir.resources import Element, Found, element, elements, text
from cloister.data.values import Value
from cloister.errors import CloisterError

_PATIENT = re.compile(r"(?:^|/)(Patient/[A-Za-z0-9.-]{1,64})(?:/_history/[^/]*)?$")


class LeftOutError(CloisterError):
    """A resource that becomes no record.

    Args:
        reason: One of `run.REASONS`.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Patients:
    """The patients of some files.

    Args:
        system: Of the identifier that tells persons apart, such as a medical record number's; None:
            references and ids do.
    """

    def __init__(self, system: str | None = None) -> None:
        self._system = system
        self._parent: dict[str, str] = {}
        # By system and value: a patient that has the identifier; empty where several have it.
        self._identified: dict[str, str] = {}
        self._chosen: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self.count = 0

    def add(self, found: Found) -> None:
        """Takes a `Patient` resource."""
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
                # Of patients that are one, or of several numbers of one, the first in order.
                self._chosen[own[0]] = min(value, self._chosen.get(own[0], value))

    def end(self) -> None:
        """Settles every patient's name, once all are there."""
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
        """The name of the patient whose a resource is.

        Returns:
            The name, and whether the files hold the patient.

        Raises:
            LeftOutError: It names no patient, or one whose name cannot be told.
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
        # A bundle's own URN means nothing outside of it, so that it is no person's name.
        missing = is_patient or name.startswith("urn:")
        raise LeftOutError("patient-missing" if missing else "not-a-patient")

    def _contained(self, resource: Element, identity: str) -> tuple[str, bool]:
        """A patient inside the resource, who is told by identifiers alone."""
        for inner in elements(resource.get("contained")):
            if text(inner.get("id")) == identity and text(inner.get("resourceType")) == "Patient":
                return self._logical(list(elements(inner.get("identifier"))), "contained-patient")
        raise LeftOutError("patient-missing")

    def _logical(self, identifiers: list[Value], reason: str) -> tuple[str, bool]:
        """A patient by identifiers.

        Raises:
            LeftOutError: There is none, for the reason given, or it is none of the files' patients,
                or several of them have it.
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
    """Ids first: exports of one server share them, and a bundle's own URL is often drawn anew."""
    return not name.startswith("Patient/"), name


def _canonical(reference: str) -> str:
    """A reference without its version; a relative one of a patient is `Patient/ID`."""
    if reference[:4].lower() == "urn:":
        return reference.lower()
    short = _PATIENT.search(reference)
    if short is None:
        return reference
    # Two servers may call two persons alike: they are then one unit, which hides more, not less.
    return short.group(1)


def _identifiers(resource: Element) -> Iterator[tuple[str, str]]:
    """System and value of each identifier that has both."""
    for one in elements(resource.get("identifier")):
        system, value = text(one.get("system")).strip(), text(one.get("value")).strip()
        if system and value:
            yield system, value
