"""The log of one model's promotions: append-only, chained by hashes, one file an entry.

`models/NAME/log/000001.json` holds {"body": {…}, "signature": hex or ""}; the body names the
SHA-256 of the entry before. An entry is one person's word that a version is to be served at a
stage. The version is served there once as many different people as the registry's rule needs have
said so about it, one after the other. Nothing is ever changed or removed: a rollback is another
entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.canonical import canonical
from cloister.data.public_file import is_sha256
from cloister.errors import LedgerError, RefusedError, UsageError
from cloister.json_text import read_json
from cloister.ledger.signing import is_signed, public_hex
from cloister.registry.rule import PromotionRule
from cloister.registry.store import Store

Kind = Literal["promote", "rollback"]
# An entry has eight short fields.
MOST_BYTES = 2**14
# The entry before the first.
NONE = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One person's word.

    Attributes:
        model: The model's name.
        number: From 1.
        previous: SHA-256 of the entry before.
        kind: `promote` or `rollback`.
        version: SHA-256 of the version that is to be served.
        stage: Where.
        by: Who says so.
        at: When, in UTC.
    """

    model: str
    number: int
    previous: str
    kind: Kind
    version: str
    stage: str
    by: str
    at: str


@dataclass(frozen=True)
class LoggedPromotion:
    """An entry as it stands in the log.

    Attributes:
        entry: What it says.
        signature: Of the person's key, in hex; empty where the rule asks for none.
        sha256: Of its file.
    """

    entry: Promotion
    signature: str
    sha256: str


@dataclass(frozen=True)
class StageState:
    """What is served at a stage.

    Attributes:
        served: Versions that were ever served there, the present one last.
        pending: The version that some have promoted, and not yet enough; None: there is none.
        agreed: Who has.
    """

    served: tuple[str, ...] = ()
    pending: str | None = None
    agreed: tuple[str, ...] = ()

    @property
    def current(self) -> str | None:
        """The version that is served."""
        return self.served[-1] if self.served else None


def _path(model: str, number: int) -> str:
    return f"models/{model}/log/{number:06d}.json"


def read_log(store: Store, model: str) -> list[LoggedPromotion]:
    """Reads a model's log, oldest entry first.

    Raises:
        LedgerError: An entry is missing, damaged, or not chained to the one before.
    """
    names = store.names(f"models/{model}/log")
    found: list[LoggedPromotion] = []
    for number in range(1, len(names) + 1):
        content = store.read(_path(model, number))
        previous = found[-1].sha256 if found else NONE
        found.append(_read(content, model, number, previous))
    return found


def _read(content: bytes | None, model: str, number: int, previous: str) -> LoggedPromotion:
    try:
        if content is None:
            raise ValueError("missing")
        table = read_json(content, most_bytes=MOST_BYTES)
        entry = Promotion(**table["body"])
        texts = [table["signature"], *(v for k, v in asdict(entry).items() if k != "number")]
        if (
            not all(isinstance(text, str) for text in texts)
            or entry.kind not in get_args(Kind)
            or not is_sha256(entry.version)
        ):
            raise ValueError("not of an entry's form")
        if (entry.model, entry.number, entry.previous) != (model, number, previous):
            raise ValueError("not chained to the entry before")
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"entry {number} of {model}: {error}; the registry's log is damaged: restore it from "
            "a backup, nothing is promoted until then"
        ) from error
    return LoggedPromotion(entry, table["signature"], hashlib.sha256(content).hexdigest())


def append(
    store: Store,
    log: Sequence[LoggedPromotion],
    entry: Mapping[str, Any],
    key: Ed25519PrivateKey | None,
) -> LoggedPromotion:
    """Adds an entry behind the log that was read.

    Args:
        store: The registry.
        log: As it was read; the entry is made for its end.
        entry: The fields of `Promotion` but for number and previous.
        key: The person's; None: unsigned.

    Raises:
        UsageError: Somebody else added an entry meanwhile.
        BadFileError: It cannot be written; the log is as it was.
    """
    previous = log[-1].sha256 if log else NONE
    whole = Promotion(**entry, number=len(log) + 1, previous=previous)
    body = asdict(whole)
    signature = "" if key is None else key.sign(canonical(body)).hex()
    content = json.dumps({"body": body, "signature": signature}, indent=2).encode()
    if not store.create(_path(whole.model, whole.number), content):
        raise UsageError(
            f"{whole.model}: somebody else promoted or rolled back meanwhile, so nothing was "
            "changed; look (cloister model show), and say it again if you still mean it"
        )
    return LoggedPromotion(whole, signature, hashlib.sha256(content).hexdigest())


def check_person(rule: PromotionRule, by: str, key: Ed25519PrivateKey | None) -> None:
    """Whether a person may promote by the registry's rule.

    Raises:
        RefusedError: They are none of the approvers, or the key is not theirs.
        UsageError: A key is needed, or none is.
    """
    if not rule.approvers:
        if key is not None:
            raise UsageError(
                "--key given, and the registry names no approvers: name them by cloister model "
                "rule, or leave the key out"
            )
        return
    if key is None:
        raise UsageError(
            f"the registry takes signed promotions alone ({', '.join(rule.approvers)}); give "
            "--by NAME and --key FILE"
        )
    if rule.approvers.get(by) != public_hex(key):
        raise RefusedError(
            f"{by}: not an approver of this registry with that key; the approvers are "
            f"{', '.join(rule.approvers)}"
        )


def stages(log: Sequence[LoggedPromotion], rule: PromotionRule) -> dict[str, StageState]:
    """What is served where, by the entries that count under the registry's rule.

    Args:
        log: A model's.
        rule: Where it names approvers, entries that none of them signed do not count.

    Raises:
        LedgerError: Entries are signed, and the rule names nobody: it was lost, and without it one
            person alone would promote.
    """
    if not rule.approvers and any(one.signature for one in log):
        raise LedgerError(
            "the registry's log has signed entries, and its rule names no approvers; restore "
            "registry.json from a backup, nothing is served or promoted until then"
        )
    found: dict[str, StageState] = {}
    for one in _counted(log, rule):
        entry, stage = one.entry, found.get(one.entry.stage, StageState())
        agreed = stage.agreed if stage.pending == entry.version else ()
        agreed = tuple(dict.fromkeys((*agreed, entry.by)))
        if len(agreed) >= rule.needs:
            served = stage.served
            if stage.current != entry.version:
                served = (*served, entry.version)
            found[entry.stage] = StageState(served)
        else:
            found[entry.stage] = StageState(stage.served, entry.version, agreed)
    return found


def _counted(log: Sequence[LoggedPromotion], rule: PromotionRule) -> Iterator[LoggedPromotion]:
    for one in log:
        key = rule.approvers.get(one.entry.by)
        if not rule.approvers or (
            key is not None
            and len(one.signature) == 128
            and is_signed(canonical(asdict(one.entry)), _bytes(one.signature), key)
        ):
            yield one


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
