"""Verifies a Cloister bundle without Cloister: python verify_certificate.py BUNDLE KEYS.json

An independent second opinion, written from the bundle's description in docs/audit.md. It needs
Python 3.11, cryptography and dp-accounting, and imports nothing of Cloister. KEYS.json maps each
site's name to its Ed25519 public key in hex, had from the site itself. It prints what was spent and
ends with 0, or names the first claim that does not hold and ends with 1.
"""

import hashlib
import json
import logging
import math
import re
import sys
import zipfile
from functools import cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

logging.getLogger("absl").setLevel(logging.ERROR)  # orders that do not converge only loosen ε
FINE, COARSE, NEAR, LARGEST = 1e-4, 1e-3, 1e-6, 500.0
FFT_ERROR, SMALLEST_DELTA, MOST_NOISE = 1e-11, 1e-9, 1e4
ORDERS = (1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 10, 12, 14, 16, 20,
          24, 32, 48, 64, 128)  # fmt: skip
NAME = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"
NAMES = re.compile(rf"(sites/{NAME}\.json|adapter/{NAME}|received\.json)")
NUMBER = (int, float)
ENTRY = {
    "begin": {"epsilon": (*NUMBER, type(None)), "delta": NUMBER, "key": str, "unit": str},
    "reserve": {"study": str, "round": int, "plan": str, "request": str, "planned_steps": int,
                "order": NUMBER, "delta": NUMBER, "epsilon": dict, "event": dict},
    "release": {"reservation": int, "sha256": str, "bytes": int},
}  # fmt: skip
CERTIFICATE = {
    "kind", "version", "site", "key", "study", "base", "adapter", "code", "time", "plans", "events",
    "rounds", "released", "epsilon", "delta", "unit", "neighbouring", "adversaries",
    "epsilon_alone", "life", "ledger",
}  # fmt: skip
PLAN = {
    "public_records", "expected_batch_size", "local_steps", "num_rounds", "noise_multiplier",
    "max_grad_norm", "max_update_norm", "delta", "unit", "max_records", "neighbouring", "message",
}  # fmt: skip


# Of shared noise a site's own part is what continuous noise of 4 squared steps less would hide, and
# it has at least 32 steps (Peikert 2010, CRYPTO, theorem 3.1). Accountants take no less than 0.2.
SHARE_LEFT, LEAST_NOISE = 1 - 4 / 32**2, 0.2


# y-coordinates of the points of order 1, 2, 4 and 8.
PRIME = 2**255 - 19
SMALL_ORDER = {0, 1, PRIME - 1, PRIME, PRIME + 1,
               0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
               0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7}  # fmt: skip


class Refuted(Exception):  # noqa: N818
    pass


def need(holds, claim):
    if not holds:
        raise Refuted(claim)


def canonical(value):
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def signed(row, key, what):
    """The fields of a signed text."""
    body, y = row["body"].encode(), int.from_bytes(bytes.fromhex(key), "little") % 2**255
    need(y not in SMALL_ORDER, f"{what}: a key of small order signs anything")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
            bytes.fromhex(row["signature"]), body
        )
    except InvalidSignature:
        raise Refuted(f"{what}: its signature does not hold") from None
    fields = json.loads(body)
    need(canonical(fields) == body, f"{what}: its text is not canonical")
    return fields, sha256(body)


# An event is (noise multiplier, sample rate, steps, is private); steps of equal ones are added.
def merged(events):
    steps = {}
    for noise, rate, count, private in events:
        steps[noise, rate, private] = steps.get((noise, rate, private), 0) + count
    return tuple((s, q, n, p) for (s, q, p), n in steps.items())


def event_of(fields):
    need(set(fields) == {"noise_multiplier", "sample_rate", "steps", "is_private"}, "unknown event")
    event = tuple(fields[k] for k in ("noise_multiplier", "sample_rate", "steps", "is_private"))
    need(event[0] >= 0 and 0 <= event[1] <= 1 and event[2] >= 0, "an event that cannot be")
    need(type(event[2]) is int and type(event[3]) is bool, "an event of other kinds")
    return event


def fields_of(event):
    return dict(zip(("noise_multiplier", "sample_rate", "steps", "is_private"), event, strict=True))


def one(noise, rate, count):
    return SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), count)


@cache
def rdp(events, delta):
    events = [e for e in events if e[2] and e[1] > 0]
    if any(not private or not 0 < noise <= MOST_NOISE for noise, _, _, private in events):
        return math.inf
    accountant = RdpAccountant()
    for noise, rate, count, _ in events:
        accountant.compose(one(noise, rate, count))
    return float(accountant.get_epsilon(delta)) if events else 0.0


@cache
def pld(events, delta, grid=FINE):
    need(delta >= SMALLEST_DELTA, "a delta below what accountants are exact to")
    limit = rdp(events, delta)
    if limit > LARGEST or not events:
        return math.inf if events else 0.0
    found = math.inf
    for width in (grid, FINE):
        accountant = PLDAccountant(value_discretization_interval=width)
        for noise, rate, count, _ in sorted(events):
            if count and rate:
                accountant.compose(one(noise, rate, count))
        found = float(accountant.get_epsilon(delta - FFT_ERROR))
        if found <= limit:
            return found
    need(found <= limit + 1e-3, "the accountants disagree")
    return found


@cache
def divergence(noise, rate, order):
    accountant = RdpAccountant([order])
    accountant.compose(one(noise, rate, 1))
    found = float(accountant._rdp[0])  # below 0 or no number where its series does not converge
    return found if found >= 0 else math.inf


def states(stated, value, what):
    given = value if math.isfinite(value) else None
    same = type(stated) is type(given) and abs((stated or 0) - (given or 0)) <= NEAR
    need(same, f"{what} is stated as {stated}, the events give {given}")


def seen_alone(charges, plans):
    """Events as the coordinator with all other sites sees them; None where no noise is shared."""
    if not any("sharing" in plans[plan] for _, plan, _ in charges):
        return None
    events = []
    for _, plan, (noise, rate, steps, private) in charges:
        if "sharing" in plans[plan]:
            sharing = plans[plan]["sharing"]
            honest = sharing["sites"] - sharing["missing"] - sharing["colluding"]
            noise *= math.sqrt(SHARE_LEFT / honest)
            if noise < LEAST_NOISE:
                noise, private = plans[plan]["noise_multiplier"], False
        events.append((noise, rate, steps, private))
    return merged(events)


def against(charges, plans):
    """Against whom the stated ε holds: others' shares are as few as the colluding know."""
    shared = [plans[p]["sharing"]["colluding"] for _, p, _ in charges if "sharing" in plans[p]]
    if not shared:
        return ["coordinator", "other-sites", "public"]
    return [f"coordinator-with-{min(shared)}-other-sites", "public"]


def is_sharing(terms):
    need(set(terms) == {"sites", "missing", "colluding", "bits"}, "unknown terms of sharing")
    sites, missing, colluding, bits = (terms[n] for n in ("sites", "missing", "colluding", "bits"))
    need(all(type(n) is int and n >= 0 for n in terms.values()), "terms of sharing of other kinds")
    return sites >= 3 and sites > 2 * missing + colluding and bits in (16, 32)


def walk(rows, key):
    """A ledger's charges and releases, after every rule that they must keep."""
    plans, charges, releases, spent, order = {}, {}, {}, 0.0, None
    head, begin, reserved, last = "0" * 64, None, {}, None
    for seq, row in enumerate(rows):
        entry, digest = signed(row, key, f"ledger entry {seq}")
        need(entry["seq"] == seq and entry["prev"] == head, f"entry {seq} does not follow")
        head, kind = digest, entry["kind"]
        need(kind in ENTRY, f"entry {seq}: unknown kind {kind!r}")
        for name, kinds in ENTRY[kind].items():
            value = entry[name]
            fine = isinstance(value, kinds) and type(value) is not bool
            need(fine and not (kinds is int and value < 0), f"entry {seq}: {name} is {value!r}")
        need((kind == "begin") == (seq == 0), f"entry {seq}: a beginning in the wrong place")
        if kind == "begin":
            need(entry["key"] == key, "begun under another key")
            need(entry["unit"] in ("record", "person") and entry["neighbouring"] == "add-remove",
                 "an unknown unit or neighbours")  # fmt: skip
            begin = entry
            cap = math.inf if entry["epsilon"] is None else entry["epsilon"] + NEAR
            need(cap > NEAR and 2 * SMALLEST_DELTA <= entry["delta"] < 1, "a budget that cannot be")
        elif kind == "release":
            at = entry["reservation"]
            need(at in reserved and at not in releases, f"entry {seq}: released without a charge")
            releases[at] = entry["sha256"], digest
        else:
            place, name = (entry["study"], entry["round"]), entry["plan"]
            need(place not in charges, f"entry {seq}: a round charged twice")
            if name not in plans:
                terms = entry["terms"]
                need(sha256(canonical(terms)) == name and set(terms) - {"sharing"} == PLAN
                     and terms["unit"] == begin["unit"], f"entry {seq}: not the plan")  # fmt: skip
                need("sharing" not in terms or is_sharing(terms["sharing"]),
                     f"entry {seq}: noise shared among too few")  # fmt: skip
                plans[name] = terms
            terms, event = plans[name], event_of(entry["event"])
            noise, steps = terms["noise_multiplier"], terms["local_steps"]
            rate = terms["expected_batch_size"] / terms["public_records"]
            whole = steps * terms["num_rounds"]
            need(event[:3] == (noise, rate, steps) and entry["planned_steps"] == whole
                 and entry["delta"] == terms["delta"] <= begin["delta"]
                 and (not event[3] or (noise > 0 and terms["max_grad_norm"] is not None)),
                 f"entry {seq}: a charge that is not its plan's")  # fmt: skip
            order = entry["order"] if order is None else order
            need(entry["order"] == order and order in ORDERS, f"entry {seq}: the filter's order")
            alone = {other["plan"] for other in reserved.values()} <= {name}
            before = sum(plans[o["plan"]]["local_steps"] for o in reserved.values())
            price = divergence(noise, rate, order) * steps if event[3] else math.inf
            spent += price
            if math.isfinite(cap):
                half = begin["delta"] / 2
                limit = cap - math.log1p(-1 / order) + math.log(half * order) / (order - 1)
                planned = ((noise, rate, whole, event[3]),)
                need(event[3] and (
                    (alone and before + steps <= whole and pld(planned, half) <= cap)
                    or spent <= limit), f"entry {seq}: charged beyond the budget")  # fmt: skip
            charges[place], reserved[seq], last = (seq, name, event), entry, entry
    life = merged(event for _, _, event in charges.values())
    if last:
        states(last["epsilon"]["pld"], pld(life, last["delta"], COARSE), "the last charge's ε")
        states(last["epsilon"]["rdp"], rdp(life, last["delta"]), "the last charge's RDP ε")
    return begin, plans, charges, releases, life, {"seq": len(rows) - 1, "hash": head}


def check_site(name, file, key, adapter, base):
    need(set(file) == {"certificate", "ledger"}, "not of the form of a certificate")
    stated, _ = signed(file["certificate"], key, "the certificate")
    need(set(stated) == CERTIFICATE and stated["kind"] == "certificate", "unknown claims")
    need(stated["version"] == 2, "another version")
    need(stated["site"] == name and stated["key"] == key, "another site's certificate")
    need(stated["adapter"] == adapter, "a certificate for another adapter")
    need(stated["base"] == base, "a certificate for another base model")
    begin, plans, charges, releases, life, head = walk(file["ledger"], key)
    mine = {r: charge for (study, r), charge in charges.items() if study == stated["study"]}
    need(mine, "the ledger has no such study")
    used = list(dict.fromkeys(plan for _, plan, _ in mine.values()))
    events, delta = merged(e for _, _, e in mine.values()), min(plans[p]["delta"] for p in used)
    least = min(plans[p]["delta"] for _, p, _ in charges.values())
    released = {r: releases.get(seq) for r, (seq, _, _) in mine.items()}
    facts = {
        "plans": [{"sha256": p, "terms": plans[p]} for p in used], "rounds": len(mine),
        "released": sum(h is not None for h in released.values()), "delta": delta,
        "unit": begin["unit"], "neighbouring": "add-remove", "ledger": head,
        "adversaries": against(mine.values(), plans),
    }  # fmt: skip
    for claim, value in facts.items():
        need(canonical([stated[claim]]) == canonical([value]), f"another {claim} than the ledger's")
    lived = stated["life"]
    for told, given in ((stated["events"], events), (lived["events"], life)):
        need(canonical(told) == canonical([fields_of(e) for e in given]), "other events")
    budget = {"epsilon": begin["epsilon"], "delta": begin["delta"]}
    need(set(lived) == {"adversaries", "events", "epsilon", "epsilon_alone", "delta", "budget"}
         and lived["delta"] == least and lived["budget"] == budget
         and lived["adversaries"] == against(charges.values(), plans),
         "another life than the ledger's")  # fmt: skip
    for both, given, at in (
        (stated["epsilon"], events, delta), (lived["epsilon"], life, least),
        (stated["epsilon_alone"], seen_alone(mine.values(), plans), delta),
        (lived["epsilon_alone"], seen_alone(charges.values(), plans), least),
    ):  # fmt: skip
        if given is None:
            need(both is None, "noise that nobody shared, stated as shared")
            continue
        need(set(both) == {"pld", "rdp"}, "an unknown accountant")
        states(both["pld"], pld(given, at), "ε by PLD")
        states(both["rdp"], rdp(given, at), "ε by RDP")
    return stated, released


def check_bundle(path, keys):
    """Certificates by site, all their claims checked."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        need(all(NAMES.fullmatch(m.filename) and m.compress_type == 0 and not m.flag_bits & 1
                 for m in members), "an unknown member")  # fmt: skip
        files = {m.filename: archive.read(m) for m in members}
    need(len(files) == len(members), "a member twice")
    adapter = {n[8:]: sha256(c) for n, c in files.items() if n.startswith("adapter/")}
    sites = {n[6:-5]: json.loads(c) for n, c in files.items() if n.startswith("sites/")}
    need(sites and "README.md" not in adapter, "not a whole bundle")
    need(set(sites) == set(keys) and len(set(keys.values())) == len(keys), "not the keys' sites")
    base = json.loads(files["adapter/cloister.json"])["model"]["sha256"]
    found = {}
    for name in sorted(sites):
        try:
            found[name] = check_site(
                name, sites[name], keys[name], sha256(canonical(adapter)), base
            )
        except Refuted as error:
            raise Refuted(f"{name}: {error}") from None
    need(len({stated["study"] for stated, _ in found.values()}) == 1, "several studies")
    received, seen = json.loads(files["received.json"]), set()
    need(canonical(received) == files["received.json"], "received.json is not canonical")
    for number, site, *hashes in received:
        need((number, site) not in seen, f"{site}: two updates in round {number}")
        seen.add((number, site))
        need(type(number) is int and found[site][1].get(number) == tuple(hashes),
             f"{site}: an update of round {number} left without its ledger")  # fmt: skip
    return {name: stated for name, (stated, _) in found.items()}


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(arguments[1], encoding="utf-8") as file:
            keys = json.load(file)
        if isinstance(keys.get("members"), list):  # as `cloister member list --json` prints them
            keys = {m["site"]: m["ledger_key"] for m in keys["members"] if m["ledger_key"]}
        certificates = check_bundle(arguments[0], keys)
    except Refuted as error:
        print(f"REFUTED: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # whatever cannot be read is not believed
        print(f"REFUTED: not readable ({error!r})", file=sys.stderr)
        return 1
    for name, stated in certificates.items():
        epsilon = stated["epsilon"]["pld"]
        print(f"{name}: ε = {'∞' if epsilon is None else f'{epsilon:.4f}'} at δ = "
              f"{stated['delta']:g} for one {stated['unit']} (add/remove) against "
              f"{', '.join(stated['adversaries'])}, {stated['released']} of {stated['rounds']} "
              "charged rounds released")  # fmt: skip
        if stated["epsilon_alone"]:
            alone = stated["epsilon_alone"]["pld"]
            print(f"  against the coordinator with all other sites: "
                  f"ε = {'∞' if alone is None else f'{alone:.4f}'}")  # fmt: skip
    print("Nothing refuted. What no bundle can show is listed in docs/audit.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
