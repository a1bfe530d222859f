"""The log of one model's promotions: append-only, chained by hashes, one file an entry.

`models/NAME/log/000001.json` holds {"body": {…}, "signature": hex or ""}; the body names the
SHA-256 of the entry before. An entry states that one person promotes a version to a stage. The
version is served there as soon as enough different people have promoted it, one after the other;
the registry's rule says how many. Entries are never changed or removed: a rollback is a new entry.

`models/NAME/head.json` names the last entry. The chain alone cannot show that entries were removed
at its end, for example by a copy that was cut off; the head shows it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.canonical import canonical
from cloister.data.public_file import is_sha256
from cloister.errors import BadFileError, LedgerError, RefusedError, UsageError
from cloister.json_text import read_json
from cloister.ledger.signing import is_signed, public_hex
from cloister.registry.rule import PromotionRule
from cloister.registry.store import Store

Kind = Literal["promote", "rollback"]
# Longest entry, in bytes: it has eight short fields.
MOST_BYTES = 2**14
# The hash that the first entry names as the entry before it.
NONE = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One person's statement that a version should be served at a stage.

    Attributes:
        model: The model's name.
        number: Number of the entry, from 1.
        previous: SHA-256 of the entry before.
        kind: `promote` or `rollback`.
        version: SHA-256 of the version to serve.
        stage: The stage, such as `production`.
        by: Name of the person.
        at: Time, in UTC.
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
    """An entry as read from the log.

    Attributes:
        entry: The person's statement.
        signature: Signature by the person's key, in hex; empty if the rule names no approvers.
        sha256: SHA-256 of the entry's file.
    """

    entry: Promotion
    signature: str
    sha256: str


@dataclass(frozen=True)
class StageState:
    """The versions of one stage.

    Attributes:
        served: Versions that were ever served there, the present one last.
        pending: The version that some people have promoted, but too few; None: there is none.
        agreed: The people who have promoted the pending version.
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


def _head(model: str) -> str:
    return f"models/{model}/head.json"


def read_log(store: Store, model: str) -> list[LoggedPromotion]:
    """Reads a model's log, oldest entry first.

    Raises:
        LedgerError: An entry is missing, damaged, or not chained to the one before; or the log ends
            before the entry that its head names.
    """
    names = store.names(f"models/{model}/log")
    found: list[LoggedPromotion] = []
    for number in range(1, len(names) + 1):
        content = store.read(_path(model, number))
        previous = found[-1].sha256 if found else NONE
        found.append(_read(content, model, number, previous))
    _check_end(store.read(_head(model)), model, found)
    return found


def _check_end(head: bytes | None, model: str, log: Sequence[LoggedPromotion]) -> None:
    """Refuses a log that lacks the entry its head names, or has another in its place.

    The log may be longer: its head is written after an entry. Logs of older versions have no head.
    """
    if head is None:
        return
    try:
        table = read_json(head, most_bytes=MOST_BYTES)
        number, sha256 = table["number"], table["sha256"]
        if type(number) is not int or number < 1 or not is_sha256(sha256):
            raise ValueError("not of a head's form")
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"{_head(model)}: damaged ({error}); restore the registry from a backup, nothing is "
            "promoted until then"
        ) from error
    if number > len(log) or log[number - 1].sha256 != sha256:
        raise LedgerError(
            f"{model}: the registry's log has {len(log)} entries, and lacks the entry {number} "
            "that its head names; restore it from a backup, nothing is served or promoted until "
            "then"
        )


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
    """Adds an entry at the end of the log that was read.

    Args:
        store: Where the registry is stored.
        log: The log, as it was read.
        entry: The fields of `Promotion` without `number` and `previous`.
        key: The person's private key; None: the entry is not signed.

    Raises:
        UsageError: Another person added an entry meanwhile.
        BadFileError: The entry cannot be written; the log is unchanged.
    """
    previous = log[-1].sha256 if log else NONE
    whole = Promotion(**entry, number=len(log) + 1, previous=previous)
    body = asdict(whole)
    signature = "" if key is None else key.sign(canonical(body)).hex()
    content = json.dumps({"body": body, "signature": signature}, indent=2).encode()
    if not store.create(_path(whole.model, whole.number), content):
        raise UsageError(
            f"{whole.model}: another person promoted or rolled back meanwhile, so nothing was "
            "changed; check with cloister model show, and repeat the command if it is still right"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    # The entry counts already. A head that lags behind, after an error or a race, detects less.
    with suppress(BadFileError):
        head = json.dumps({"number": whole.number, "sha256": sha256}).encode()
        store.write(_head(whole.model), head)
    return LoggedPromotion(whole, signature, sha256)


def check_person(rule: PromotionRule, by: str, key: Ed25519PrivateKey | None) -> None:
    """Refuses a person who may not promote under the registry's rule.

    Raises:
        RefusedError: The person is not an approver, or the key is not that person's.
        UsageError: A key is needed and was not given, or was given and is not needed.
    """
    if not rule.approvers:
        if key is not None:
            raise UsageError(
                "--key given, but the registry names no approvers; name them with cloister model "
                "rule, or leave the key out"
            )
        return
    if key is None:
        raise UsageError(
            f"the registry accepts only promotions that an approver signed "
            f"({', '.join(rule.approvers)}); give --by NAME and --key FILE"
        )
    if rule.approvers.get(by) != public_hex(key):
        raise RefusedError(
            f"{by}: not an approver of this registry with that key; the approvers are "
            f"{', '.join(rule.approvers)}"
        )


def stages(log: Sequence[LoggedPromotion], rule: PromotionRule) -> dict[str, StageState]:
    """Returns the state of each stage, from the entries that count under the registry's rule.

    Args:
        log: A model's log.
        rule: The rule. If it names approvers, only entries that one of them signed count.

    Raises:
        LedgerError: Entries are signed, but the rule names no approvers. The rule was lost, and
            without it a single person could promote.
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
