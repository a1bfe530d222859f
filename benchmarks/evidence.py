"""What checking evidence costs: a large bundle, and the attack on a large step."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.figure import Figure
from cloister.audit.frozen_step import audit_step
from cloister.evidence.bundle import Bundle, read_bundle, write_bundle
from cloister.evidence.fingerprint import adapter_sha256
from cloister.evidence.verification import examine
from cloister.ledger.certificate import Evidence, certify
from cloister.ledger.chain import Entry, Head, sign
from cloister.ledger.signing import create_key, public_hex
from cloister.privacy.accounting import COARSE, epsilon, rdp_epsilon
from cloister.privacy.plan import Plan

SITES, ROUNDS = 50, 300
TRIALS, PARAMETERS = 5000, 100_000
ADAPTER = {"cloister.json": b'{"model": {"sha256": "base"}}'}


def figures() -> Iterator[Figure]:
    yield Figure(f"s to verify {SITES} sites x {ROUNDS} rounds", _verification(), 30, "at most")
    name = f"s to attack a step of {PARAMETERS:,} parameters {TRIALS} times"
    yield Figure(name, _attack(), 120, "at most")


def _plan(site: int) -> Plan:
    """A plan of each site's own: nothing that verification computes serves two."""
    return Plan(
        public_records=1200 + site,
        expected_batch_size=100,
        local_steps=1,
        num_rounds=ROUNDS,
        noise_multiplier=1.1,
        max_grad_norm=1.0,
        max_update_norm=1.0,
        delta=1e-5,
    )


def _verification() -> float:
    with tempfile.TemporaryDirectory() as folder:
        sites: dict[str, Evidence] = {}
        for number in range(SITES):
            name, key = f"site-{number}", create_key(Path(folder) / f"{number}.key")
            sites[name] = certify(
                _chain(_plan(number), key),
                None,
                site=name,
                base="base",
                adapter=adapter_sha256(ADAPTER),
                key=key,
                time="bench",
            )
        path = Path(folder) / "bundle.zip"
        write_bundle(path, Bundle(sites, ADAPTER, []))
        keys = {name: evidence.fields["key"] for name, evidence in sites.items()}
        from cloister.privacy.pld import pld_epsilon

        pld_epsilon.cache_clear()
        started = time.perf_counter()
        examine(read_bundle(path), keys)
        return time.perf_counter() - started


def _chain(plan: Plan, key: Ed25519PrivateKey) -> list[Entry]:
    one, whole = plan.event(1), plan.event(ROUNDS)
    about = {"code": "bench", "time": "bench"}
    first = {
        "kind": "begin",
        "epsilon": 50.0,
        "delta": 2e-5,
        "unit": "record",
        "key": public_hex(key),
        "neighbouring": "add-remove",
        **about,
    }
    entries = [sign(first, None, key)]
    stated = {"pld": epsilon([whole], 1e-5, COARSE), "rdp": rdp_epsilon([whole], 1e-5)}
    for number in range(1, ROUNDS + 1):
        charge = {
            "kind": "reserve",
            "study": "s",
            "round": number,
            "plan": plan.digest(),
            "request": "r",
            "event": asdict(one),
            "planned_steps": ROUNDS,
            "order": 3.0,
            "epsilon": stated,
            "delta": 1e-5,
            **about,
            **({"terms": asdict(plan)} if number == 1 else {}),
        }
        entries.append(sign(charge, Head(len(entries) - 1, entries[-1].hash), key))
        release = {
            "kind": "release",
            "reservation": len(entries) - 1,
            "sha256": "0" * 64,
            "bytes": 1,
            **about,
        }
        entries.append(sign(release, Head(len(entries) - 1, entries[-1].hash), key))
    return entries


def _attack() -> float:
    plan = replace(_plan(0), noise_multiplier=1.0)
    started = time.perf_counter()
    audit_step(plan, PARAMETERS, TRIALS)
    return time.perf_counter() - started
