"""Small bundles, made without training, and forged ones of an insider with the site's key."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.canonical import canonical, json_number
from cloister.evidence.bundle import Bundle, Received
from cloister.evidence.fingerprint import adapter_sha256
from cloister.ledger.budget import Budget, most_steps
from cloister.ledger.certificate import Evidence, certify
from cloister.ledger.certificate_forms import NAMED, statement
from cloister.ledger.chain import Entry, Head, sign
from cloister.ledger.history import request_of
from cloister.ledger.signing import public_hex
from cloister.ledger.verify import verify
from cloister.privacy.accounting import COARSE, epsilon, rdp_epsilon
from cloister.privacy.events import GaussianEvent
from cloister.privacy.plan import Plan
from cloister.privacy.release_kind import ReleaseKind
from tests.support.ledgers import small_plan

BASE = "ba" * 32
ADAPTER = {
    "cloister.json": json.dumps({"model": {"sha256": BASE}}).encode(),
    "adapter_model.safetensors": b"weights",
}
ABOUT = {"code": "test", "time": "then"}
UNITS = "0f" * 16  # the fingerprint of a key of units


def key_of(number: int) -> Ed25519PrivateKey:
    """A site's key, the same in every test."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number + 1]) * 32)


def chain(
    key: Ed25519PrivateKey,
    rounds: Sequence[tuple[str, int, Plan, bool] | tuple[str, int, Plan, bool, ReleaseKind]],
    *,
    cap: float | None = 50.0,
    order: float = 2.0,
    seeded: bool = False,
    is_old: bool = False,
) -> list[Entry]:
    """A sound ledger's entries, made without its file.

    Args:
        key: The site's.
        rounds: Study, round, plan, whether it was released, and the kind if it is no training.
        cap: ε of the data set's life.
        order: The filter's.
        seeded: Whether its randomness is predictable.
        is_old: As ledgers were before the first charge fixed the most steps.
    """
    first = {
        "kind": "begin",
        "epsilon": cap,
        "delta": 2e-5,
        "unit": "record",
        "key": public_hex(key),
        "neighbouring": "add-remove",
        **ABOUT,
    }
    entries = [sign(first, None, key)]
    events: list[GaussianEvent] = []
    known: set[str] = set()
    rows = Counter[tuple[str, str]]()

    def add(fields: dict[str, Any]) -> None:
        entries.append(sign({**fields, **ABOUT}, Head(len(entries) - 1, entries[-1].hash), key))

    for study, number, plan, released, *other in rounds:
        kind = other[0] if other else ReleaseKind.TRAINING
        done = rows[study, plan.digest()]
        rows[study, plan.digest()] += kind is ReleaseKind.TRAINING
        asked = request_of(plan, is_private=not seeded, before=done, kind=kind)
        event = asked.event
        events.append(event)
        terms: dict[str, Any] = {} if plan.digest() in known else {"terms": plan.terms()}
        known.add(plan.digest())
        if len(events) == 1 and cap is not None and not is_old:
            terms["most_steps"] = most_steps(asked, Budget(epsilon=cap, delta=2e-5))
        stated = {
            "pld": json_number(epsilon(events, plan.delta, COARSE)),
            "rdp": json_number(rdp_epsilon(events, plan.delta)),
        }
        add(
            {
                "kind": "reserve",
                "study": study,
                "round": number,
                "plan": plan.digest(),
                **terms,
                "request": f"adapter {number}",
                "event": asdict(event),
                "order": order,
                "planned_steps": asked.planned_steps,
                **({"step": done, "units": UNITS} if plan.bands else {}),
                **({"release_kind": kind.value} if other else {}),
                "epsilon": stated,
                "delta": plan.delta,
            }
        )
        if released:
            add(
                {
                    "kind": "release",
                    "reservation": len(entries) - 1,
                    "sha256": f"{number:064x}",
                    "bytes": 7,
                }
            )
    return entries


def certified(entries: Sequence[Entry], number: int) -> Evidence:
    """Site `number`'s evidence on `study`."""
    return certify(
        entries,
        "study",
        site=f"site-{number}",
        base=BASE,
        adapter=adapter_sha256(ADAPTER),
        key=key_of(number),
        time="then",
    )


def certified_as(version: int, entries: Sequence[Entry], number: int) -> Evidence:
    """The same, as a certificate of an older version was made."""
    evidence = certified(entries, number)
    named = {name: value for name, value in evidence.fields.items() if name in NAMED}
    given = statement(verify(entries, "it"), "study", version)
    key = key_of(number)
    body = canonical({**named, **given, "version": version})
    return Evidence(Entry(body, key.sign(body)), tuple(entries))


def bundle_of(sites: int = 2, rounds: int = 2, *, plan: Plan | None = None) -> Bundle:
    """Makes a bundle of sites that each released `rounds` rounds of one study."""
    chosen = plan or small_plan()
    evidence = {
        f"site-{number}": certified(
            chain(key_of(number), [("study", r, chosen, True) for r in range(1, rounds + 1)]),
            number,
        )
        for number in range(sites)
    }
    received = [
        received_of(evidence[f"site-{number}"], r)
        for r in range(1, rounds + 1)
        for number in range(sites)
    ]
    return Bundle(evidence, ADAPTER, received)


def received_of(evidence: Evidence, number: int) -> Received:
    """Returns the coordinator's record of one released round of `study`."""
    charges = {}
    for entry in evidence.ledger:
        fields = entry.fields
        if fields["kind"] == "reserve" and (fields["study"], fields["round"]) == ("study", number):
            charges[fields["seq"]] = fields
        if fields["kind"] == "release" and fields["reservation"] in charges:
            return Received(number, evidence.fields["site"], fields["sha256"], entry.hash)
    raise ValueError(f"round {number} was not released")


def keys_of(sites: int = 2) -> dict[str, str]:
    """The sites' public keys."""
    return {f"site-{number}": public_hex(key_of(number)) for number in range(sites)}


def rechained(
    entries: Sequence[Entry], key: Ed25519PrivateKey, change: Callable[[int, dict[str, Any]], None]
) -> list[Entry]:
    """Rewrites a ledger as an insider with the site's key could."""
    written: list[Entry] = []
    for number, entry in enumerate(entries):
        fields = {k: v for k, v in entry.fields.items() if k not in ("seq", "prev")}
        change(number, fields)
        head = Head(number - 1, written[-1].hash) if written else None
        written.append(sign(fields, head, key))
    return written


def resigned(evidence: Evidence, key: Ed25519PrivateKey, **changes: Any) -> Evidence:
    """Changes a certificate's claims and signs it again."""
    body = canonical({**evidence.fields, **changes})
    return Evidence(Entry(body, key.sign(body)), evidence.ledger)
