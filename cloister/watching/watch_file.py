"""Reads a watch file, which names every place that a watch reads from, writes to or sends to."""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass, field
from pathlib import Path

from cloister.bounds import shortened
from cloister.errors import RecipeError, UsageError
from cloister.fields import read_section
from cloister.names import is_name
from cloister.toml_text import parse_file, read_file
from cloister.watching.addresses import (
    HostPort,
    check_host,
    host_port,
    is_this_machine,
    webhook_host,
)
from cloister.watching.config import (
    AlertsConfig,
    DriftConfig,
    HttpConfig,
    ReferenceConfig,
    SourceConfig,
    SurgesConfig,
    TopicConfig,
    WatchConfig,
)

# Most sections [topics.NAME] in a file.
MOST_TOPICS = 50
# The atoms of RFC 5322, section 3.2.3, without quotes and comments.
_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")
REMEDY = "write one as docs/watching.md shows"
# A filled-in file; the how-to page shows it.
EXAMPLE = """\
[watch]
name = "news"
folder = "news.watch"        # state, page and report.json; for its owner alone

[source]
kind = "file"                # a file that grows; or stdin, or http
file = "predictions.jsonl"   # an object a line, as cloister predict --out writes them
text = "text"                # your own columns, if the rows have them
time = "at"

[reference]
file = "reference.jsonl"     # predictions of a time when all was well; its rows need no times

[drift]
window_rows = 500            # rows of a window
psi_alert = 0.25             # credit scoring's convention: 0.1 small, 0.25 large
psi_calm = 0.1
false_alarm = 0.05           # of one false finding or more in horizon windows
horizon = 365

[surges]
step_seconds = 900           # a look each quarter of an hour
window_seconds = 3600        # at the last hour
baseline_seconds = 604800    # against the week before
min_count = 5
min_ratio = 2.0

[topics.acme]
terms = ["Acme", "ACME Corp"]
answers = ["negative"]       # labels that are counted

[topics.companies]
column = "company"           # each value is a topic
answers = ["negative"]

[alerts]
file = "alerts.jsonl"
webhooks = ["http://127.0.0.1:9000/alerts"]

[http]
listen = "127.0.0.1:9470"    # /metrics, and the page
"""
_SECTIONS = {
    "watch": WatchConfig,
    "source": SourceConfig,
    "reference": ReferenceConfig,
    "drift": DriftConfig,
    "surges": SurgesConfig,
    "alerts": AlertsConfig,
    "http": HttpConfig,
}


@dataclass(frozen=True, kw_only=True)
class WatchFile:
    """The content of a watch file; the docstrings of the sections explain each key.

    Attributes:
        path: The file; its relative paths begin at its folder.
    """

    path: Path
    watch: WatchConfig
    source: SourceConfig
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    surges: SurgesConfig = field(default_factory=SurgesConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    topics: dict[str, TopicConfig] = field(default_factory=dict)

    def place(self, text: str) -> Path:
        """Returns a path in the file, relative to the file's folder."""
        return self.path.parent / text

    @property
    def folder(self) -> Path:
        """Returns the folder of the state, the page and the report."""
        return self.place(self.watch.folder)

    @property
    def listens(self) -> HostPort | None:
        """Returns host and port of the HTTP listener; None: there is none."""
        return None if self.http.listen is None else host_port(self.http.listen, "http.listen")

    @property
    def outside(self) -> tuple[str, ...]:
        """Returns the hosts outside of this machine to which alerts go."""
        hosts = [webhook_host(url, "alerts.webhooks") for url in self.alerts.webhooks]
        if self.alerts.recipients:
            hosts.append(host_port(self.alerts.mail_server, "alerts.mail_server").host)
        return tuple(dict.fromkeys(host for host in hosts if not is_this_machine(host)))


def read_watch_file(path: Path) -> WatchFile:
    """Reads a watch file and checks all sections.

    Raises:
        BadFileError: The file cannot be read, or is not TOML.
        RecipeError: The file is invalid; the message has all problems.
    """
    return watch_file_of(path, read_file(path, REMEDY))


def watch_file_of(path: Path, content: bytes) -> WatchFile:
    """Reads a watch file's bytes; see `read_watch_file`."""
    tables = parse_file(path, content, REMEDY)
    problems: list[str] = []
    known = {*_SECTIONS, "topics"}
    problems += [
        f"{shortened(name)[1:-1]}: unknown section; known: {', '.join(sorted(known))}"
        for name in tables
        if name not in known
    ]
    for name in ("watch", "source"):
        if name not in tables:
            problems.append(f"{name}: missing; a section [{name}] is needed")
    sections: dict[str, typing.Any] = {}
    for name, kind in _SECTIONS.items():
        table = tables.get(name)
        if isinstance(table, dict):
            if name == "watch":
                missing = [key for key in ("name", "folder") if key not in table]
                problems += [f"watch.{key}: missing" for key in missing]
                if missing:
                    continue
            sections[name] = read_section(kind, table, name, problems, others=_SECTIONS)
        elif table is not None:
            problems.append(f"{name}: {shortened(table)} given; a section [{name}] is needed")
    topics = _topics(tables.get("topics", {}), problems)
    if not problems:
        found = WatchFile(path=path, **sections, topics=topics)
        problems += _problems(found)
        if not problems:
            return found
    raise RecipeError([f"{path}: {problem}" for problem in problems])


def _topics(tables: object, problems: list[str]) -> dict[str, TopicConfig]:
    found: dict[str, TopicConfig] = {}
    if not isinstance(tables, dict) or len(tables) > MOST_TOPICS:
        problems.append(f"topics: at most {MOST_TOPICS} sections [topics.NAME] are allowed")
        return found
    for name, table in tables.items():
        if not isinstance(table, dict) or not is_name(name):
            problems.append(f"topics.{shortened(name)[1:-1]}: a section [topics.NAME] is needed")
            continue
        if "=" in name:  # parts a column's topic from its value
            problems.append(f"topics.{shortened(name)[1:-1]}: a name without = is needed")
            continue
        topic = read_section(TopicConfig, table, f"topics.{name}", problems)
        if topic is not None:
            found[name] = topic
    return found


def _problems(file: WatchFile) -> list[str]:
    """Returns the problems that concern more than one section."""
    problems = []
    outside = file.alerts.outside_hosts
    checks: list[typing.Callable[[], object]] = [
        lambda url=url: check_host(  # type: ignore[misc]
            webhook_host(url, "alerts.webhooks"), outside, "alerts.webhooks"
        )
        for url in file.alerts.webhooks
    ]
    if file.alerts.recipients:
        checks.append(lambda: _check_mail(file.alerts))
    checks.append(lambda: _check_listen(file))
    for check in checks:
        try:
            check()
        except UsageError as error:
            problems.append(str(error))
    if not file.topics and file.reference.file is None:
        problems.append(
            "nothing to watch: name a reference by file in [reference], or a topic by [topics.NAME]"
        )
    return problems


def _check_mail(alerts: AlertsConfig) -> None:
    server = host_port(alerts.mail_server, "alerts.mail_server")
    check_host(server.host, alerts.outside_hosts, "alerts.mail_server")
    for address in (alerts.mail_sender, *alerts.recipients):
        if not _MAIL.fullmatch(address):
            raise UsageError(f"alerts.recipients: {shortened(address)} is not a mail address")


def _check_listen(file: WatchFile) -> None:
    place = file.listens
    if place is not None and not is_this_machine(place.host):
        raise UsageError(
            f"http.listen: {shortened(place.host)} is not a loopback address; metrics and page are "
            "of private records, so they are served on this machine only: put a proxy with access "
            "control of your own in front"
        )
    if file.source.kind == "http" and place is None:
        raise UsageError('http.listen: missing; the source kind = "http" takes rows there')
