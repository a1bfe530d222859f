"""Finds what a dashboard shows: a coordinator, a site or ledgers, by the path's content."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from cloister.client.site_file import read_site
from cloister.dashboard.auditor import read_bundle_facts, read_ledgers
from cloister.dashboard.coordinator import read_coordinator
from cloister.dashboard.metrics import coordinator_metrics, failure_metrics, site_metrics
from cloister.dashboard.pages import Link, render
from cloister.dashboard.site import SiteView, read_site_facts
from cloister.errors import BadFileError, LedgerError

WANTED = "a coordinator's folder, a site.toml, a ledger, a bundle, or a folder of ledgers is needed"


@dataclass(frozen=True)
class Page:
    """One page of a dashboard, with its address.

    Attributes:
        name: Name of its template, its address and its file.
        label: Its name in words.
        facts: Reads the facts that it shows.
    """

    name: str
    label: str
    facts: Callable[[datetime], object]


@dataclass(frozen=True)
class Source:
    """A coordinator, a site, or ledgers, as a dashboard shows them.

    Attributes:
        pages: The pages; the first is the start page.
        metrics: Makes a scrape; None: there are no metrics.
    """

    pages: Sequence[Page]
    metrics: Callable[[datetime], bytes] | None = None

    def page(self, page: Page, now: datetime, *, is_live: bool) -> str:
        """Renders one whole page as HTML.

        Raises:
            CloisterError: Its facts cannot be read, or are not valid.
        """
        targets = [
            (one, self.address(one) if is_live else f"{one.name}.html") for one in self.pages
        ]
        links = [Link(one.label, target) for one, target in targets]
        return render(page.name, page.facts(now), now, links=links, is_live=is_live)

    def address(self, page: Page) -> str:
        """Returns a live page's address, relative to the others."""
        return "." if page is self.pages[0] else page.name


@dataclass
class SiteScrapes:
    """The metrics of a site, scrape by scrape.

    Attributes:
        name: The site's name.
        read: Reads its facts.
        failures: Scrapes so far that found its ledger not valid.
    """

    name: str
    read: Callable[[datetime], SiteView]
    failures: int = 0

    def __call__(self, now: datetime) -> bytes:
        """Returns the metrics of one scrape."""
        try:
            return site_metrics(self.read(now), self.failures)
        except LedgerError:
            self.failures += 1
            return failure_metrics(self.name, self.failures)


def open_source(path: Path, keys: Mapping[str, str]) -> Source:
    """Recognizes what a path is, by its content.

    Args:
        path: A coordinator's folder, a site's file, a ledger, a bundle, or a folder of ledgers.
        keys: The sites' public keys, from another source.

    Raises:
        BadFileError: It is none of these.
    """
    if not path.exists():
        raise BadFileError(f"{path}: does not exist; {WANTED}")
    if path.is_dir():
        return _of_folder(path, keys)
    if path.suffix == ".toml":
        return _of_site(path, keys)
    if zipfile.is_zipfile(path):
        return Source([Page("audit", "Audit", lambda now: read_bundle_facts(path, keys))])
    return _of_ledgers(path.stem, {path.stem: path}, keys)


def _of_folder(path: Path, keys: Mapping[str, str]) -> Source:
    if (path / "server.toml").exists():
        read = partial(read_coordinator, path)
        page = Page("coordinator", "Coordinator", read)
        return Source([page], lambda now: coordinator_metrics(read(now), now))
    folder = path / "ledgers" if (path / "ledgers").is_dir() else path
    files = {file.stem: file for file in sorted(folder.glob("*.ledger"))}
    if not files:
        raise BadFileError(f"{path}: has neither a server.toml nor a ledger; {WANTED}")
    return _of_ledgers(path.resolve().name, files, keys)


def _of_site(path: Path, keys: Mapping[str, str]) -> Source:
    file = read_site(path)
    name = file.site.name
    own = _of_ledgers(name, {name: file.ledger}, keys).pages[0]
    read = partial(read_site_facts, path)
    return Source([Page("site", "Site", read), own], SiteScrapes(name, read))


def _of_ledgers(name: str, files: Mapping[str, Path], keys: Mapping[str, str]) -> Source:
    return Source([Page("audit", "Audit", lambda now: read_ledgers(name, files, keys))])
