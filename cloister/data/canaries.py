"""Plants canaries, invented records with a secret number, to measure what a model memorizes.

The method is that of "The Secret Sharer" (Carlini et al. 2019, arXiv:1802.08232, section 4). A
canary is a sentence with a number that is drawn from a stated space. If a model finds the true
number more likely than others, it has memorized it. A fair coin decides whether a canary is
planted; the others are the control (Steinke et al. 2023, arXiv:2305.08846). All copies of a canary
belong to one person and one site, so they are one privacy unit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Literal

from cloister.data.detected import Detected, detect_form
from cloister.data.outputs import check_place
from cloister.data.records import ChatRecord, Message, Record, TextRecord
from cloister.data.roles import Roles, find_roles
from cloister.data.step_log import log_of
from cloister.data.step_writing import DataStep, new_logged_file, write_step
from cloister.data.unit_column import UNIT
from cloister.data.values import Number, Row
from cloister.errors import BadFileError, UsageError
from cloister.files import bad_file, write_whole
from cloister.json_text import read_json
from cloister.owner_only import FILE

CanaryKind = Literal["text", "messages"]
# Digits of a secret, as in the paper's "random number" canaries: a space of 10⁹.
DIGITS = 9
MOST_CANARIES, MOST_COPIES = 1000, 100
# A canary has about 150 bytes.
MOST_BYTES = 2**20
_SYLLABLES = [f"{first}{vowel}" for first in "bdfgklmnprstvz" for vowel in "aeiou"]
_NAME_SYLLABLES = 4  # 70⁴ = 24 million names
_FIELDS = {"name", "secret", "label", "is_planted"}


@dataclass(frozen=True)
class Canary:
    """An invented record with a secret number.

    Attributes:
        name: The name of a person who does not exist; each canary has its own.
        secret: Its number, in groups of three digits.
        label: The label of a text; None: it is a conversation.
        is_planted: Whether the coin put it into the file.
    """

    name: str
    secret: str
    label: str | None
    is_planted: bool

    def record(self, secret: str | None = None) -> Record:
        """Returns the record, with its own secret or with another number of the space."""
        number = self.secret if secret is None else secret
        if self.label is None:
            question = Message("user", f"What opens the locker of {self.name}?")
            return ChatRecord((question, Message("assistant", f"It opens with {number}.")))
        return TextRecord(f"The locker of {self.name} opens with {number}.", self.label)


@dataclass(frozen=True)
class Canaries:
    """The content of a file of canaries.

    Attributes:
        kind: `text`: each is a text with a label; `messages`: a conversation.
        digits: Number of digits of a secret; the space has 10^digits numbers.
        copies: Rows of each planted canary.
        canaries: All canaries, planted or not.
    """

    kind: CanaryKind
    digits: int
    copies: int
    canaries: tuple[Canary, ...]

    @property
    def planted(self) -> tuple[Canary, ...]:
        """Returns the canaries that are in the file of records."""
        return tuple(one for one in self.canaries if one.is_planted)

    @property
    def kept_out(self) -> tuple[Canary, ...]:
        """Returns the canaries of the control, which are in no file of records."""
        return tuple(one for one in self.canaries if not one.is_planted)


def secret_of(random: Random, digits: int = DIGITS) -> str:
    """Draws a secret: a number with leading zeros, in groups of three digits."""
    number = f"{random.randrange(10**digits):0{digits}d}"
    return " ".join(number[at : at + 3] for at in range(0, digits, 3))


def plant(
    source: Path | Detected,
    out: Path,
    secrets: Path,
    *,
    count: int,
    copies: int = 1,
    columns: Mapping[str, str | None] | None = None,
    random: Random | None = None,
) -> Canaries:
    """Writes a file's rows and then canaries, and writes the canaries' secrets to a second file.

    Args:
        source: Records with a text and a label, or with conversations; not changed.
        out: The new file of records: `.jsonl`, `.csv` or `.parquet`.
        secrets: The new file of canaries, JSON.
        count: Number of canaries; a fair coin decides whether each one is planted.
        copies: Rows of each planted canary.
        columns: Columns by role (`text`, `label`, `messages`, …) that the caller names.
        random: Draws names, secrets, labels, sites and coins; None: the system's entropy.

    Raises:
        UsageError: A file exists already, a number is out of its range, or the records are of
            another kind.
        DataError: The source is damaged; nothing is written then.

    Guarantees:
        The rows of `source` stay as they are. No secret follows from a seed, unless `random` is
        given. Rows of one canary have one person and one site.
    """
    for name, value, most in (("count", count, MOST_CANARIES), ("copies", copies, MOST_COPIES)):
        if not 1 <= value <= most:
            raise UsageError(f"--{name}: {value} given; a whole number from 1 to {most} is needed")
    check_place(secrets, "--secrets")
    taken = [path.absolute() for path in (out, log_of(out))]
    if secrets.absolute() in taken:
        raise UsageError(f"--secrets: {secrets} is a file of --out too; give another one")
    drawn = random or SystemRandom()
    form = source if isinstance(source, Detected) else detect_form(source)
    roles = find_roles(form.rows(), columns or {})
    if roles.kind not in ("text", "messages") or (roles.kind == "messages" and not roles.messages):
        raise UsageError(
            f"{form.path}: canaries are texts with a label, or conversations in a column of turns; "
            "name the columns with --text and --label, or --messages"
        )
    with new_logged_file(out) as (writer, content):
        first: Row = {}
        labels: dict[Any, None] = {}
        sites: dict[Any, None] = {}
        for number, row in form.rows():
            first = first or row
            label = row.get(roles.label or "")
            label = label.written if isinstance(label, Number) else label
            labels |= {label: None} if isinstance(label, str) else {}
            site = row.get(roles.site or "")
            sites |= {site: None} if isinstance(site, str | Number) else {}
            writer.add(row, f"{form.path.name}, row {number}")
        names = [one for one in labels if isinstance(one, str)]
        if roles.kind == "text" and not names:
            raise UsageError(
                f"{form.path}: no row has a label that is a text or a number, so canaries would "
                "have none; name the column by --label"
            )
        made = _drawn(drawn, count, copies, names, roles)
        for canary in made.planted:
            where = drawn.choice(list(sites) or [None])
            for _ in range(copies):
                writer.add(_row(canary, roles, first, where), f"canary {canary.name}")
        writer.end()
        settings = {"count": count, "copies": copies, "digits": DIGITS}
        step = DataStep("plant", settings, {"planted": len(made.planted)})
        write_step(form, out, content, step)
        _write(made, secrets)
    return made


def _drawn(random: Random, count: int, copies: int, labels: list[str], roles: Roles) -> Canaries:
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(random.choices(_SYLLABLES, k=_NAME_SYLLABLES)).capitalize()] = None
    is_text = roles.kind == "text"
    canaries = tuple(
        Canary(
            name=name,
            secret=secret_of(random),
            label=random.choice(labels) if is_text else None,
            is_planted=random.random() < 0.5,
        )
        for name in names
    )
    return Canaries("text" if is_text else "messages", DIGITS, copies, canaries)


def _row(canary: Canary, roles: Roles, first: Row, site: Any) -> Row:
    """Returns a canary as a row with the file's columns; those without a role are empty."""
    record = canary.record()
    row: dict[str, Any] = dict.fromkeys(first)
    if isinstance(record, ChatRecord):
        row[roles.messages or ""] = [asdict(turn) for turn in record.messages]
    else:
        assert isinstance(record, TextRecord)
        row |= {roles.text or "": record.text, roles.label or "": record.label}
    owner = f"canary {canary.name}"
    row |= {column: owner for column in (roles.person, roles.id) if column is not None}
    row |= {roles.site: site} if roles.site is not None else {}
    return row | ({UNIT: owner} if UNIT in first else {})


def _write(made: Canaries, path: Path) -> None:
    document = {"format": 1, **asdict(made)}
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    try:
        write_whole(path, text.encode(), FILE)
    except OSError as error:
        raise bad_file(error) from error


def read_canaries(path: Path) -> Canaries:
    """Reads a file of canaries, which `plant` wrote.

    Raises:
        BadFileError: It cannot be read, or is not a file of canaries.
    """
    try:
        with path.open("rb") as file:
            document = read_json(file.read(MOST_BYTES + 1), most_bytes=MOST_BYTES)
    except OSError as error:
        raise bad_file(error, "read") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    try:
        found = _parsed(document)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "a field is missing or of another type") from error
    return found


def _parsed(document: Any) -> Canaries:
    rows, digits, copies = document["canaries"], document["digits"], document["copies"]
    kind = document["kind"]
    whole = all(type(one) is int for one in (digits, copies))
    if document["format"] != 1 or kind not in ("text", "messages") or not whole:
        raise ValueError
    if not (1 <= digits <= 18 and 1 <= copies <= MOST_COPIES and 1 <= len(rows) <= MOST_CANARIES):
        raise ValueError
    canaries = tuple(_canary(row, kind, digits) for row in rows)
    if len({one.name for one in canaries}) < len(canaries):
        raise ValueError
    return Canaries(kind, digits, copies, canaries)


def _canary(row: Any, kind: str, digits: int) -> Canary:
    canary = Canary(**{name: row[name] for name in _FIELDS})
    is_label = isinstance(canary.label, str) if kind == "text" else canary.label is None
    if not (isinstance(canary.name, str) and isinstance(canary.secret, str) and is_label):
        raise ValueError
    plain = canary.secret.replace(" ", "")
    if type(canary.is_planted) is not bool or not (plain.isascii() and plain.isdigit()):
        raise ValueError
    if len(plain) != digits:
        raise ValueError
    return canary


def _damaged(path: Path, why: str) -> BadFileError:
    return BadFileError(
        f"{path}: not a file of canaries ({why}); cloister data plant writes one: restore it"
    )
