"""Reads `site.toml` as a whole: the places of data, base and ledger, and the policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cloister.bounds import MOST_NAME, MOST_PATH, MOST_RECORDS, Between, Text, shortened
from cloister.client.approvals_config import EXAMPLE as APPROVALS_EXAMPLE
from cloister.client.approvals_config import ApprovalsConfig, approvals_of
from cloister.client.declared_records import RecordsConfig
from cloister.client.policy_file import EXAMPLE as POLICY_EXAMPLE
from cloister.client.policy_file import SitePolicy, policy_of
from cloister.data.config import (
    CHINESE_SHOPS,
    GENERATED,
    DataConfig,
    EncodingName,
    Separator,
    SeparatorName,
    check_form,
    declared_form,
)
from cloister.data.formats import FileForm
from cloister.data.held_out import check_share
from cloister.errors import RecipeError, UsageError
from cloister.fields import LATER, check_bounds, read_section
from cloister.models.config import Rank
from cloister.names import is_name
from cloister.tasks.score_scale import ScoreScale
from cloister.toml_text import parse_file, read_file
from cloister.training.machine import MachineConfig

# The value in a new file for what only the institution knows; reading it gives an error with the
# key.
FILL_IN = "FILL IN"
# 30 days in seconds.
LONGEST_ROUND = 30 * 86_400.0

Column = Annotated[str, Text(MOST_NAME)]

# A filled-in file. `TEMPLATE` is the same with `FILL_IN` for what `_BLANK` names.
EXAMPLE = (
    """\
[site]
name = "st-marys"           # in every study
data = "records.jsonl"      # private; never leaves
public_records = 1200       # declared number of records or persons: public, need not be exact
ledger = "records.ledger"   # of this data set, for its lifetime
# model = "/models/MiniLM"  # folder of the base model; absent: as the study names it
# rank = 4                  # rank of its adapters in studies of mixed ranks
# text = "note"             # column of the text, if it has another name
# label_separator = ";"     # between several labels in one cell of text, as in a CSV
# encoding = "gb18030"      # of the records' text; absent: UTF-8
# separator = "semicolon"   # of a CSV or TSV; absent: comma or tab, as the ending says
# agent_user = "cloister"   # user of the agent, if root starts the service
# max_round_seconds = 14400 # a round that takes longer is ended
# keep_adapters = false     # take no adapter of a finished study; absent: take it
# couples_units = true      # where the log beside the data says so: ε is of the file as written
# held_out_share = 0.1      # of records or persons, never trained on: to score adapters here

[records]                   # what the records hold: from a public code book, never from the records
task = "sequence-classification"
labels = ["cardiology", "dermatology", "orthopaedics"]  # all labels that may occur

"""
    + POLICY_EXAMPLE
    + "\n"
    + APPROVALS_EXAMPLE
    + """
# [machine]                 # of this computer; no result depends on it
# device = "auto"           # cpu, cuda, cuda:1 or mps; auto: a GPU if torch can use one
# frozen_cache_gib = 4.0        # memory for outputs of frozen layers
# processes = 1                 # training processes, each on its own CUDA GPU
# gradient_checkpointing = false  # true: less memory, about a third more time
"""
)
_BLANK = {
    "site": ("name", "data", "public_records"),
    "records": ("labels",),
    "budget": ("epsilon", "delta"),
    "privacy": ("person",),
}


def _blank(example: str) -> str:
    """An example with `FILL_IN` for what only the institution knows."""
    section, lines = "", []
    for line in example.splitlines():
        if head := re.match(r"\[(\w+)\]", line):
            section = head[1]
        found = re.fullmatch(r"(\w+) = (.+?)(?:\s+# (.+))?", line)
        if found and found[1] in _BLANK.get(section, ()):
            key, value, comment = found.groups()
            line = f'{key} = "{FILL_IN}"  # such as {value}' + (f"; {comment}" if comment else "")
        lines.append(line + "\n")
    return "".join(lines)


TEMPLATE = _blank(EXAMPLE)


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """The `[site]` section: the site's name, its private file, its ledger and the base.

    Attributes:
        name: The site's name in every study.
        data: File of its private records, in any supported format.
        public_records: Declared, public number of its records, or persons where the unit is a
            person. It sets the sample rate in place of the true number, which is private.
        ledger: The data set's ledger; its key lies beside it.
        model: Folder of the base model; absent: the study's `model.base`.
        rank: Rank of its adapters in studies of mixed ranks; absent: the study's largest.
        text: Column of a text; of a pair, of the first.
        text_b: Column of a pair's second text; absent: `text_b`.
        label: Column of its label.
        tokens: Column of a sentence's words.
        tags: Column of their tags.
        messages: Column of a conversation.
        encoding: Encoding of `data`: `gb18030`, `latin-1`, …; absent: UTF-8.
        separator: Between the cells of a CSV or TSV: `comma`, `semicolon`, `tab`, `bar` or a
            character; absent: as the ending says.
        agent_user: Operating-system user of the agent, if root starts the service. It must be able
            to read the data and write the ledger, but not to read the node's key. Absent: the
            service's own user.
        max_round_seconds: After this time in one round the agent is ended and started again; the
            round stays spent. The default is four times Flower's hour for one exchange.
        keep_adapters: Whether the site takes the final adapter of a study in which it took part.
        couples_units: Whether a step that made its file looked at more than one unit, as the log
            beside the file says: ε is then about the units of the file as it was written, and the
            ledger, certificates and cards say so.
        labels: Column of a text's labels, a list of them.
        label_separator: The text between several labels in one cell, as in a CSV file (`";"`);
            absent: a list is needed.
        score: Column of a text's score.
        items: Column of what a person had, oldest first.
        held_out_share: Share of its units that no study trains on, chosen by a keyed hash, so that
            `cloister site evaluate` can score adapters; absent: none. Fixed for the data set's life
            by the first study that the site joins with it. The plan, and so ε and every answer, is
            the same with and without it.
    """

    name: str
    data: Annotated[str, Text(MOST_PATH)]
    public_records: Annotated[int, Between(1, MOST_RECORDS)]
    ledger: Annotated[str, Text(MOST_PATH)]
    model: Annotated[str, Text(MOST_PATH)] | None = None
    rank: Rank | None = None
    text: Column = "text"
    text_b: Column | None = None
    label: Column = "label"
    tokens: Column = "tokens"
    tags: Column = "tags"
    messages: Column = "messages"
    encoding: EncodingName | None = field(default=None, metadata=LATER)
    separator: SeparatorName | None = field(default=None, metadata=LATER)
    agent_user: str | None = None
    max_round_seconds: Annotated[float, Between(1e-3, LONGEST_ROUND)] = 4 * 3600.0
    keep_adapters: bool = True
    labels: Column = "labels"
    label_separator: Separator | None = None
    score: Column = "score"
    items: Column = "items"
    couples_units: bool = False
    held_out_share: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        for name in ("name", "data", "ledger"):
            if not getattr(self, name):
                raise UsageError(f"{name}: empty; it must be given")
        if not is_name(self.name):
            raise UsageError(
                f"name: {shortened(self.name)} given; certificate files are named after it, so it "
                "must have no / or \\ and not begin with a dot"
            )
        check_bounds(self)
        if self.held_out_share is not None:
            check_share(self.held_out_share, self.public_records)
        check_form(self.encoding, self.separator)
        declared_form(self.data, self.data, self.encoding, self.separator)


@dataclass(frozen=True)
class SiteFile:
    """A checked `site.toml`: all sections, and the paths that they name.

    Attributes:
        path: The file's path; relative paths in it start at its folder.
        site: Its `[site]` section.
        policy: Its policy sections.
        records: Its `[records]` section; None in an older file without one, with which a site
            cannot join a study.
        machine: Its `[machine]` section: device and memory for training.
        approvals: Its `[approvals]` section: who must approve a study.
    """

    path: Path
    site: SiteConfig
    policy: SitePolicy
    records: RecordsConfig | None = None
    machine: MachineConfig = field(default_factory=MachineConfig)
    approvals: ApprovalsConfig = field(default_factory=ApprovalsConfig)

    @property
    def declared(self) -> RecordsConfig:
        """Returns what the site declares about its records.

        Raises:
            RecipeError: The file has no `[records]`.
        """
        if self.records is None:
            raise RecipeError(
                [
                    f"{self.path}: records: missing; add a section "
                    "[records] with task, and labels as a public code book lists them"
                ]
            )
        return self.records

    @property
    def scale(self) -> ScoreScale | None:
        """Returns the scale of scores that the site declares; None: its records have no scores.

        Raises:
            RecipeError: Nothing is declared.
        """
        declared = self.declared
        if declared.score_range is None:
            return None
        return ScoreScale.of(declared.score_range, declared.score_step)

    @property
    def items(self) -> str | None:
        """This site's public file of items, or a generator's name; None: of another task.

        Raises:
            RecipeError: Nothing is declared.
        """
        named = self.declared.items
        return (
            named
            if named is None or named in (*GENERATED.values(), CHINESE_SHOPS)
            else str(self.place(named))
        )

    @property
    def data(self) -> Path:
        """Returns the path of the file that holds the records."""
        return self.place(self.site.data)

    def place(self, name: str) -> Path:
        """The path of a file that the site names, relative to `site.toml`."""
        return self.path.parent / Path(name).expanduser()

    @property
    def ledger(self) -> Path:
        """Returns the path of the ledger of the site's data set."""
        return self.place(self.site.ledger)

    @property
    def form(self) -> FileForm | None:
        """The format of that file, by its ending and the section; None: the ending is unknown."""
        site = self.site
        return declared_form(site.data, site.data, site.encoding, site.separator)

    @property
    def columns(self) -> DataConfig:
        """The columns of its records, for loading."""
        site = self.site
        return DataConfig(
            text=site.text,
            text_b=site.text_b,
            label=site.label,
            tokens=site.tokens,
            tags=site.tags,
            messages=site.messages,
            person=self.policy.privacy.person,
            labels=site.labels,
            label_separator=site.label_separator,
            score=site.score,
            items=site.items,
        )


_REMEDY = "cloister site init writes one to start from"


def read_site(path: Path) -> SiteFile:
    """Reads and checks a `site.toml`.

    Raises:
        BadFileError: It is missing, unreadable or not valid TOML.
        RecipeError: The file is invalid; all problems at once.
    """
    return site_of(path, site_bytes(path))


def site_bytes(path: Path) -> bytes:
    """Returns the bytes of a `site.toml`, up to a limit.

    Raises:
        BadFileError: It cannot be read.
    """
    return read_file(path, _REMEDY)


def site_of(path: Path, content: bytes) -> SiteFile:
    """Parses the bytes of a `site.toml`; see `read_site`.

    Args:
        path: Its path, for messages.
        content: Its bytes, read once, so that their hash and their meaning belong together.
    """
    tables = parse_file(path, content, _REMEDY)
    blanks = [
        f"{path}: {key}: not filled in yet; see the comment beside it"
        for section, table in tables.items()
        if isinstance(table, Mapping)
        for key in _blanks(section, table)
    ]
    if blanks:
        raise RecipeError(blanks)
    problems: list[str] = []
    site = _site(tables.pop("site", None), problems)
    records = _records(tables.pop("records", None), problems)
    machine = _machine(tables.pop("machine", {}), problems)
    approvals = approvals_of(tables.pop("approvals", {}), problems)
    try:
        policy = policy_of(tables)
    except RecipeError as error:
        problems += error.problems
    if problems or site is None or machine is None or approvals is None:
        raise RecipeError([f"{path}: {problem}" for problem in problems])
    return SiteFile(path.absolute(), site, policy, records, machine, approvals)


def _blanks(path: str, table: Mapping[str, object]) -> list[str]:
    """Keys that still say `FILL_IN`, in a section and in its lists of tables."""
    found = []
    for key, value in table.items():
        if value == FILL_IN or (isinstance(value, list) and FILL_IN in value):
            found.append(f"{path}.{key}")
        for number, row in enumerate(value if isinstance(value, list) else (), 1):
            if isinstance(row, Mapping):
                found += _blanks(f"{path}.{key} {number}", row)
    return found


def _machine(table: object, problems: list[str]) -> MachineConfig | None:
    if not isinstance(table, Mapping):
        problems.append(f"machine: {shortened(table)} given; a section [machine] is needed")
        return None
    return read_section(MachineConfig, table, "machine", problems)


def _site(table: object, problems: list[str]) -> SiteConfig | None:
    if not isinstance(table, Mapping):
        problems.append("site: missing; a section [site] is needed")
        return None
    needed = ("name", "data", "public_records", "ledger")
    missing = [f"site.{key}: missing, and it has no default" for key in needed if key not in table]
    problems += missing
    return None if missing else read_section(SiteConfig, table, "site", problems)


def _records(table: object, problems: list[str]) -> RecordsConfig | None:
    if table is None:
        return None
    if not isinstance(table, Mapping):
        problems.append(f"records: {table!r} given; a section [records] is needed")
        return None
    if "task" not in table:
        problems.append("records.task: missing, and it has no default")
        return None
    return read_section(RecordsConfig, table, "records", problems)
