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
import struct
import sys
import zipfile
from decimal import ROUND_CEILING, Decimal
from functools import cache
from itertools import pairwise

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

logging.getLogger("absl").setLevel(logging.ERROR)  # orders that do not converge only loosen ε
FINE, COARSE, NEAR, LARGEST = 1e-4, 1e-3, 1e-6, 500.0
FFT_ERROR, SMALLEST_DELTA, MOST_NOISE = 1e-11, 1e-9, 1e4
ORDERS = (
    1.25,
    1.5,
    1.75,
    2,
    2.25,
    2.5,
    2.75,
    3,
    3.5,
    4,
    4.5,
    5,
    5.5,
    6,
    7,
    8,
    10,
    12,
    14,
    16,
    20,
    24,
    32,
    48,
    64,
    128,
)
NAME = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"
NAMES = re.compile(rf"(sites/{NAME}\.json|adapter/{NAME}|received\.json)")
NUMBER = (int, float)
# The parts of a JSON text, and an archive's end (APPNOTE 4.3.16).
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
END = struct.Struct("<4s4H2LH")
MOST_TEXT, MOST_MEMBERS, MOST_SHOWN = 2**27, 11_000, 500
ENTRY = {
    "begin": {"epsilon": (*NUMBER, type(None)), "delta": NUMBER, "key": str, "unit": str},
    "reserve": {
        "study": str,
        "round": int,
        "plan": str,
        "request": str,
        "planned_steps": int,
        "order": NUMBER,
        "delta": NUMBER,
        "epsilon": dict,
        "event": dict,
    },
    "release": {"reservation": int, "sha256": str, "bytes": int},
}
ALWAYS = {
    "kind",
    "version",
    "site",
    "key",
    "study",
    "base",
    "adapter",
    "code",
    "time",
    "plans",
    "events",
    "rounds",
    "released",
    "unit",
    "neighbouring",
    "life",
    "ledger",
}
# 1 and 2 state the ε of the rounds that ran, which is no promise; 3 states the promise, too.
CERTIFICATE = {
    1: ALWAYS | {"epsilon", "delta", "adversaries"},
    2: ALWAYS | {"epsilon", "delta", "adversaries", "epsilon_alone"},
    3: ALWAYS | {"promise", "promise_alone", "spent", "spent_alone"},
}
# 4: of data that a step made which looked at more than one unit.
CERTIFICATE[4] = CERTIFICATE[3] | {"couples_units"}
# 5: of a ledger that charged an evaluation on held-out units.
CERTIFICATE[5] = CERTIFICATE[4] | {"evaluations"}
# 6: of a ledger that charged votes for candidate texts.
CERTIFICATE[6] = CERTIFICATE[5] | {"votes"}
# A first charge fixes at most so many steps, or its own plan's.
MOST_SEARCHED, MOST_CANDIDATES = 100_000, 20_000
PLAN = {
    "public_records",
    "expected_batch_size",
    "local_steps",
    "num_rounds",
    "noise_multiplier",
    "max_grad_norm",
    "max_update_norm",
    "delta",
    "unit",
    "max_records",
    "neighbouring",
    "message",
}


# Of shared noise a site's own part is what continuous noise of 4 squared steps less would hide, and
# it has at least 32 steps (Peikert 2010, CRYPTO, theorem 3.1). Accountants take no less than 0.2.
SHARE_LEFT, LEAST_NOISE = 1 - 4 / 32**2, 0.2


# y-coordinates of the points of order 1, 2, 4 and 8.
PRIME = 2**255 - 19
SMALL_ORDER = {
    0,
    1,
    PRIME - 1,
    PRIME,
    PRIME + 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7,
}


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
    fields = load(body)
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
            share = noise * math.sqrt(SHARE_LEFT / honest)
            if share < LEAST_NOISE:
                private = False
            else:
                noise = share
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


def is_banded(terms):
    """Whether noise is correlated in a way that keeps its law: one step a round, own noise."""
    bands = terms["bands"]
    whole = type(bands) is list and all(type(k) is int and 1 <= k <= 256 for k in bands)
    falling = whole and all(k >= after for k, after in pairwise(bands))
    return (
        falling
        and 2 <= len(bands) <= 32
        and "sharing" not in terms
        and terms["local_steps"] == 1
        and terms["noise_multiplier"] > 0
        and terms["max_grad_norm"] is not None
    )


def kinds_of(terms):
    """A plan's groups, its rate, and the steps of all its rounds that an accountant counts.

    With correlated noise over b rounds a unit is in one round of b, drawn at b times the rate
    (Choquette-Choo et al. 2023, arXiv:2306.08153).
    """
    groups = len(terms.get("bands", ())) or 1
    rate = groups * terms["expected_batch_size"] / terms["public_records"]
    return groups, rate, -(-terms["local_steps"] * terms["num_rounds"] // groups)


def is_evaluated(terms):
    """Whether a plan's evaluations can be: rounds of the plan in rising order, beside independent
    noise; statistics with shared noise take 32 bits."""
    told = terms["evaluations"]
    need(set(told) == {"rounds", "noise_multiplier"}, "unknown terms of evaluations")
    rounds, noise = told["rounds"], told["noise_multiplier"]
    return (
        type(rounds) is list
        and all(type(n) is int and 1 <= n <= terms["num_rounds"] for n in rounds)
        and rounds == sorted(set(rounds)) != []
        and type(noise) in NUMBER
        and LEAST_NOISE <= noise <= MOST_NOISE
        and "bands" not in terms
        and terms.get("sharing", {"bits": 32})["bits"] == 32
        and terms["noise_multiplier"] > 0
        and terms["max_grad_norm"] is not None
    )


def is_voted(terms):
    """Whether a plan's votes can be: of every unit once a round, of norm 1, beside nothing else;
    counts with shared noise take 32 bits."""
    votes = terms["votes"]
    return (
        type(votes) is int
        and 2 <= votes <= MOST_CANDIDATES
        and terms["expected_batch_size"] == terms["public_records"]
        and terms["local_steps"] == 1
        and terms["max_grad_norm"] == 1
        and terms["max_update_norm"] is None
        and terms["noise_multiplier"] > 0
        and not {"bands", "evaluations"} & set(terms)
        and terms.get("sharing", {"bits": 32})["bits"] == 32
    )


def listed(terms, private):
    """All releases of a plan as events, by kind; an evaluation takes every held-out unit."""
    _, rate, steps = kinds_of(terms)
    kind = "vote" if "votes" in terms else "training"
    found = {kind: (terms["noise_multiplier"], rate, steps, private)}
    if "evaluations" in terms:
        told = terms["evaluations"]
        found["evaluation"] = told["noise_multiplier"], 1.0, len(told["rounds"]), private
    return found


def step_kind(terms, event, kind):
    """What steps must have in common to be counted together."""
    noise, rate, _, private = event
    return noise, rate, private, terms["max_records"], canonical(terms.get("sharing")), kind


def walk(rows, key):
    """A ledger's charges and releases, after every rule that they must keep."""
    plans, charges, releases, spent, order, most = {}, {}, {}, 0.0, None, None
    alike, limits, passed = {}, {}, {}
    head, begin, reserved, last, unit_key, taken = "0" * 64, None, {}, None, None, {}
    several = False
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
        need(type(entry["time"]) is str, f"entry {seq}: a time that is no text")
        need(entry.get("couples_units", True) is True, f"entry {seq}: couples_units is not true")
        if kind == "begin":
            need(entry["key"] == key, "begun under another key")
            need(
                entry["unit"] in ("record", "person") and entry["neighbouring"] == "add-remove",
                "an unknown unit or neighbours",
            )
            need(isinstance(entry.get("person", ""), str), "person is no column's name")
            begin = entry
            cap = math.inf if entry["epsilon"] is None else entry["epsilon"] + NEAR
            need(cap > NEAR and 2 * SMALLEST_DELTA <= entry["delta"] < 1, "a budget that cannot be")
        elif kind == "release":
            at = entry["reservation"]
            need(at in reserved and at not in releases, f"entry {seq}: released without a charge")
            mine = reserved[at]["study"], reserved[at]["plan"]
            need(
                "bands" not in plans[mine[1]] or taken[mine][-1] == at,
                f"entry {seq}: correlated noise released after a later step of its plan",
            )
            releases[at] = entry["sha256"], digest
        else:
            release = entry.get("release_kind", "training")
            need(
                release in ("training", "evaluation", "vote")
                and ("release_kind" in entry) == (release != "training"),
                f"entry {seq}: an unknown kind of release",
            )
            place, name = (entry["study"], entry["round"], release), entry["plan"]
            need(place not in charges, f"entry {seq}: a round charged twice")
            if name not in plans:
                terms = entry["terms"]
                need(
                    sha256(canonical(terms)) == name
                    and set(terms) - {"sharing", "bands", "evaluations", "votes"} == PLAN
                    and terms["unit"] == begin["unit"],
                    f"entry {seq}: not the plan",
                )
                need(
                    "sharing" not in terms or is_sharing(terms["sharing"]),
                    f"entry {seq}: noise shared among too few",
                )
                need(
                    "bands" not in terms or is_banded(terms),
                    f"entry {seq}: coefficients of correlated noise that cannot be",
                )
                need(
                    "evaluations" not in terms or is_evaluated(terms),
                    f"entry {seq}: evaluations that cannot be",
                )
                need("votes" not in terms or is_voted(terms), f"entry {seq}: votes that cannot be")
                plans[name] = terms
            terms, event = plans[name], event_of(entry["event"])
            noise, steps = terms["noise_multiplier"], terms["local_steps"]
            groups, rate, _ = kinds_of(terms)
            whole = listed(terms, event[3])
            need(release in whole, f"entry {seq}: a kind of release that its plan does not list")
            total = sum(one[2] for one in whole.values())
            own = taken.setdefault((entry["study"], name), [])
            done = len(own)
            trained, evaluated = passed.get(place[0], (0, 0))
            if release == "evaluation":
                need(
                    place[1] in terms.get("evaluations", {"rounds": ()})["rounds"]
                    and max(trained, evaluated) <= place[1],
                    f"entry {seq}: an evaluation at another moment than its declared one",
                )
                noise, rate, steps = terms["evaluations"]["noise_multiplier"], 1.0, 1
                passed[place[0]] = trained, place[1]
            elif release == "vote":
                need(
                    1 <= place[1] <= terms["num_rounds"],
                    f"entry {seq}: a vote in no round of its plan",
                )
            else:
                need(place[1] > evaluated, f"entry {seq}: a round before an evaluation after it")
                passed[place[0]] = max(trained, place[1]), evaluated
            if groups > 1:  # the first round of a cycle pays for all of it
                steps = 1 if done % groups == 0 else 0
                need(
                    entry["step"] == done and type(entry["step"]) is int,
                    f"entry {seq}: not the next step of its plan",
                )
                unit_key = entry["units"] if unit_key is None else unit_key
                need(
                    type(unit_key) is str and entry["units"] == unit_key,
                    f"entry {seq}: units grouped by another key than before",
                )
            else:
                need(not entry.keys() & {"step", "units"}, f"entry {seq}: a step of no cycle")
            need(
                event[:3] == (noise, rate, steps)
                and entry["planned_steps"] == total
                and entry["delta"] == terms["delta"] <= begin["delta"]
                and (not event[3] or (noise > 0 and terms["max_grad_norm"] is not None)),
                f"entry {seq}: a charge that is not its plan's",
            )
            first, order = not reserved, entry["order"] if order is None else order
            need(entry["order"] == order and order in ORDERS, f"entry {seq}: the filter's order")
            need(first or "most_steps" not in entry, f"entry {seq}: steps fixed anew")
            if first and "most_steps" in entry:
                most = entry["most_steps"]
                need(type(most) is int and most >= 0, f"entry {seq}: most_steps is {most!r}")
            mine = step_kind(terms, event, release)
            alike[mine] = alike.get(mine, 0) + steps
            if first and len(whole) > 1 and most:
                limits = {step_kind(terms, e, kind): e[2] for kind, e in whole.items()}
            several = several or (first and len(whole) > 1)
            alone = {other["plan"] for other in reserved.values()} <= {name}
            before = sum(o["event"]["steps"] for o in reserved.values())
            price = divergence(noise, rate, order) * steps if steps else 0.0
            price = price if event[3] else math.inf
            spent += price
            if math.isfinite(cap):
                half = begin["delta"] / 2
                limit = cap - math.log1p(-1 / order) + math.log(half * order) / (order - 1)
                if first and most and len(whole) > 1:
                    need(
                        most == total and pld(merged(whole.values()), half) <= cap,
                        f"entry {seq}: fixes another list than its plan's, or beyond the budget",
                    )
                elif first and most:
                    held = ((noise, rate, most, event[3]),)
                    need(
                        most <= max(MOST_SEARCHED, total)
                        and (pld(held, half, COARSE) <= cap or pld(held, half) <= cap),
                        f"entry {seq}: fixes more steps than the budget covers",
                    )
                if most is None:  # an older ledger: one plan alone, and all of it
                    planned = merged(whole.values())
                    as_one = alone and before + steps <= total and pld(planned, half) <= cap
                    as_one = as_one and len(whole) == 1
                elif several:  # a list: of each kind at most so many
                    as_one = all(count <= limits.get(kind, -1) for kind, count in alike.items())
                else:
                    as_one = len(alike) == 1 and before + steps <= most
                need(
                    event[3] and (as_one or spent <= limit),
                    f"entry {seq}: charged beyond the budget",
                )
            if release == "training":
                own.append(seq)
            charges[place], reserved[seq], last = (seq, name, event), entry, entry
    life = merged(event for _, _, event in charges.values())
    if last:
        states(last["epsilon"]["pld"], pld(life, last["delta"], COARSE), "the last charge's ε")
        states(last["epsilon"]["rdp"], rdp(life, last["delta"]), "the last charge's RDP ε")
    return begin, plans, charges, releases, life, {"seq": len(rows) - 1, "hash": head}


def promised(begin, plans, charges):
    """ε and δ with all steps of the one plan that was ever charged; None: they are the budget's."""
    studies, cap = {place[0] for place in charges}, begin["epsilon"]
    cap = math.inf if cap is None else cap
    if len(plans) == 1 and len(studies) == 1:
        [(name, terms)] = plans.items()
        private = all(event[3] for _, _, event in charges.values())
        whole = merged(listed(terms, private).values())
        ran = {(s, q): 0 for s, q, _, _ in whole}
        for _, _, (noise, rate, steps, _) in charges.values():
            ran[noise, rate] += steps
        among = all(ran[noise, rate] <= steps for noise, rate, steps, _ in whole)
        if among and pld(whole, begin["delta"] / 2) <= cap + NEAR:
            return pld(whole, terms["delta"]), terms["delta"], (name, whole)
    return cap, begin["delta"], None


def need_figure(told, value, second, about, what):
    """A stated ε with all that it is of."""
    names = {"epsilon", *about} | ({"epsilon_rdp"} if second is not None else set())
    need(isinstance(told, dict) and set(told) == names, f"{what}: not of the form of an ε")
    rest = {name: told[name] for name in about}
    need(canonical(rest) == canonical(about), f"{what}: it is of something else")
    states(told["epsilon"], value, what)
    if second is not None:
        states(told["epsilon_rdp"], second, f"{what} by RDP")


def check_figures(stated, begin, plans, charges, mine):
    """Version 3: what is promised, and what is spent, which is no promise."""
    value, delta, one = promised(begin, plans, charges)
    about = {
        "delta": delta,
        "unit": begin["unit"],
        "neighbouring": "add-remove",
        "accountant": "pld" if one else "budget-rule",
        "is_promise": True,
        "basis": "whole-plan" if one else "lifetime-budget",
    }
    told = {**about, "adversaries": against(charges.values(), plans)}
    second = rdp(one[1], delta) if one else None
    need_figure(stated["promise"], value, second, told, "the promise")
    others = ["coordinator-with-all-other-sites"]
    if any("sharing" in terms for terms in plans.values()):
        least = math.inf
        if one:
            least = pld(seen_alone([(0, one[0], event) for event in one[1]], plans), delta)
        need_figure(
            stated["promise_alone"],
            least,
            None,
            {**about, "adversaries": others},
            "the promise against all other sites",
        )
    else:
        need(stated["promise_alone"] is None, "noise that nobody shared, stated as shared")
    spent = {
        **about,
        "accountant": "pld",
        "is_promise": False,
        "basis": "spent-so-far",
        "delta": delta if one else begin["delta"] / 2,
    }
    lived = stated["life"]
    need(set(lived) == {"events", "spent", "spent_alone", "budget"}, "another life")
    for told, of in ((stated, mine), (lived, charges)):
        events = merged(event for _, _, event in of.values())
        names = {**spent, "adversaries": against(of.values(), plans)}
        at = spent["delta"]
        need_figure(told["spent"], pld(events, at), rdp(events, at), names, "what is spent")
        seen = seen_alone(of.values(), plans)
        if seen is None:
            need(told["spent_alone"] is None, "noise that nobody shared, stated as shared")
        else:
            need_figure(
                told["spent_alone"],
                pld(seen, at),
                None,
                {**spent, "adversaries": others},
                "what is spent against all other sites",
            )


def check_old_figures(stated, plans, charges, mine):
    """Versions 1 and 2: the ε of the rounds that ran, of the study and of the data set's life."""
    delta = min(plans[plan]["delta"] for _, plan, _ in mine.values())
    least = min(plans[plan]["delta"] for _, plan, _ in charges.values())
    lived = stated["life"]
    about = {"events", "epsilon", "delta", "budget"}
    if stated["version"] == 2:
        about |= {"adversaries", "epsilon_alone"}
    need(
        set(lived) == about
        and canonical([lived["delta"]]) == canonical([least])
        and canonical([stated["delta"]]) == canonical([delta]),
        "another life or δ",
    )
    for told, of, at in ((stated, mine, delta), (lived, charges, least)):
        names = against(of.values(), plans)
        if told is stated or stated["version"] == 2:
            need(canonical(told["adversaries"]) == canonical(names), "other adversaries")
        figures = [(told["epsilon"], merged(event for _, _, event in of.values()))]
        if stated["version"] == 2:
            figures.append((told["epsilon_alone"], seen_alone(of.values(), plans)))
        for both, given in figures:
            if given is None:
                need(both is None, "noise that nobody shared, stated as shared")
                continue
            need(set(both) == {"pld", "rdp"}, "an unknown accountant")
            states(both["pld"], pld(given, at), "ε by PLD")
            states(both["rdp"], rdp(given, at), "ε by RDP")


def check_site(name, file, key, adapter, base):
    need(set(file) == {"certificate", "ledger"}, "not of the form of a certificate")
    stated, _ = signed(file["certificate"], key, "the certificate")
    version = stated["version"]
    need(type(version) is int and version in CERTIFICATE, "another version")
    need(set(stated) == CERTIFICATE[version] and stated["kind"] == "certificate", "unknown claims")
    need(stated["site"] == name and stated["key"] == key, "another site's certificate")
    made = "data set" if stated.get("votes") and not stated["rounds"] else "adapter"
    need(stated["adapter"] == adapter, f"a certificate for another {made}")
    need(stated["base"] == base, "a certificate for another base model")
    begin, plans, charges, releases, life, head = walk(file["ledger"], key)
    mine = {place: c for place, c in charges.items() if place[0] == stated["study"]}
    need(mine, "the ledger has no such study")
    used = list(dict.fromkeys(plan for _, plan, _ in mine.values()))
    released = {
        (number, kind): releases.get(seq) for (_, number, kind), (seq, _, _) in mine.items()
    }
    rounds = [h for (_, kind), h in released.items() if kind == "training"]
    by_kind = {
        told: [
            {"round": number, "released": h is not None}
            for (number, kind), h in released.items()
            if kind == told
        ]
        for told in ("evaluation", "vote")
    }
    facts = {
        "plans": [{"sha256": p, "terms": plans[p]} for p in used],
        "rounds": len(rounds),
        "released": sum(h is not None for h in rounds),
        "unit": begin["unit"],
        "neighbouring": "add-remove",
        "ledger": head,
    }
    for claim, value in facts.items():
        need(canonical([stated[claim]]) == canonical([value]), f"another {claim} than the ledger's")
    lived, events = stated["life"], merged(event for _, _, event in mine.values())
    for told, given in ((stated["events"], events), (lived["events"], life)):
        need(canonical(told) == canonical([fields_of(e) for e in given]), "other events")
    need(
        lived["budget"] == {"epsilon": begin["epsilon"], "delta": begin["delta"]}, "another budget"
    )
    coupled = any(json.loads(row["body"]).get("couples_units") for row in file["ledger"])
    kinds = {kind for _, _, kind in charges}
    need("evaluation" not in kinds or version >= 5, "it hides the evaluations of its ledger")
    need("vote" not in kinds or version >= 6, "it hides the votes of its ledger")
    if version >= 5:
        need(stated["couples_units"] is coupled, "it hides, or invents, that units were coupled")
        need(
            canonical(stated["evaluations"]) == canonical(by_kind["evaluation"]),
            "other evaluations than the ledger's",
        )
    if version >= 6:
        need(
            canonical(stated["votes"]) == canonical(by_kind["vote"]),
            "other votes than the ledger's",
        )
    if version < 5:
        need(coupled == (version == 4), "it hides, or invents, that units were coupled")
        need(stated.get("couples_units", True) is True, "couples_units that is not true")
    if version >= 3:
        check_figures(stated, begin, plans, charges, mine)
    else:
        check_old_figures(stated, plans, charges, mine)
    return stated, released, (promised(begin, plans, charges), against(charges.values(), plans))


def shown(text):
    """For a terminal: bounded, and no control character or turn of direction of others' acts."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: MOST_SHOWN + 1])
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def load(content, most=MOST_TEXT):
    """JSON, bounded before it is parsed: its objects take many times the bytes of its text."""
    need(len(content) <= most, f"a text of more than {most} bytes")
    text, depth, values = content.decode(), 0, 0
    for token in TOKEN.finditer(text):
        opens, closes = token[0] in "[{", token[0] in "]}"
        depth, values = depth + opens - closes, values + (opens or token[0] == ",")
        need(depth <= 12 and values <= 1000 + len(text) // 5, "a text of too many parts")
    return json.loads(text, parse_constant=lambda name: need(False, f"{name} is no number"))


def open_members(file):
    """A stored archive's members by name; all of them together are no larger than the file."""
    size = file.seek(0, 2)
    file.seek(max(0, size - END.size))
    mark, disk, first, here, count, length, start, comment = END.unpack(file.read())
    need(
        mark == b"PK\5\6"
        and (disk, first, comment) == (0, 0, 0)
        and here == count
        and start + length + END.size == size,
        "not an archive's end",
    )
    need(count <= MOST_MEMBERS and length <= count * 400, "too many members")
    archive = zipfile.ZipFile(file)
    members = archive.infolist()
    need(len(members) == count == len({m.filename for m in members}), "a member twice")
    need(
        all(
            NAMES.fullmatch(m.filename)
            and m.compress_type == 0
            and not m.flag_bits & 1
            and m.file_size == m.compress_size
            and (m.external_attr >> 28) in (0, 8)
            for m in members
        ),
        "an unknown member",
    )
    ordered = sorted(members, key=lambda m: m.header_offset)
    following = [m.header_offset for m in ordered[1:]] + [start]
    for member, end in zip(ordered, following, strict=False):
        need(member.header_offset + 30 + member.file_size <= end, "members that share their bytes")
    return archive, {m.filename: m for m in members}


def check_bundle(path, keys):
    """Certificates by site, all their claims checked."""
    with open(path, "rb") as file:
        archive, members = open_members(file)
        files, adapter = {}, {}
        for name, member in members.items():
            with archive.open(member) as stream:
                if name.startswith("adapter/"):  # as large as it is: one piece at a time
                    adapter[name[8:]] = hashlib.file_digest(stream, "sha256").hexdigest()
            if not name.startswith("adapter/") or name == "adapter/cloister.json":
                need(member.file_size <= MOST_TEXT, f"{name} is too long")
                files[name] = archive.read(member)
    sites = {n[6:-5]: load(c) for n, c in files.items() if n.startswith("sites/")}
    need(sites and "README.md" not in adapter, "not a whole bundle")
    need(set(sites) == set(keys) and len(set(keys.values())) == len(keys), "not the keys' sites")
    base = load(files["adapter/cloister.json"])["model"]["sha256"]
    found = {}
    for name in sorted(sites):
        try:
            found[name] = check_site(
                name, sites[name], keys[name], sha256(canonical(adapter)), base
            )
        except Refuted as error:
            raise Refuted(f"{name}: {error}") from None
    need(len({stated["study"] for stated, *_ in found.values()}) == 1, "several studies")
    received, seen = load(files["received.json"]), set()
    need(canonical(received) == files["received.json"], "received.json is not canonical")
    for number, site, own, entry, *rest in received:
        kind = rest[0] if rest else "training"
        need(rest in ([], ["evaluation"], ["vote"]), f"{site}: an unknown kind of release")
        need((number, site, kind) not in seen, f"{site}: two of one kind in round {number}")
        seen.add((number, site, kind))
        need(
            type(number) is int and found[site][1].get((number, kind)) == (own, entry),
            f"{site}: of round {number} something left ({kind}) that is not in its ledger",
        )
    return {name: (stated, promise) for name, (stated, _, promise) in found.items()}


def epsilon_text(value: float) -> str:
    """ε to four decimals, rounded up: what is read is never less than what holds."""
    if not math.isfinite(value):
        return "∞"
    return str(Decimal(repr(value)).quantize(Decimal("0.0001"), ROUND_CEILING))


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
        print(shown(f"REFUTED: {error}"), file=sys.stderr)
        return 1
    except Exception as error:  # whatever cannot be read is not believed
        print(shown(f"REFUTED: not readable ({error!r})"), file=sys.stderr)
        return 1
    for name, (stated, ((value, delta, one), adversaries)) in certificates.items():
        of = "the whole plan" if one else "everything that the data set ever releases"
        print(
            f"{shown(name)}: ε = {epsilon_text(value)} "
            f"at δ = {delta:g} for one {stated['unit']} (add/remove) against "
            f"{', '.join(adversaries)}, promised for {of}; {stated['released']} of "
            f"{stated['rounds']} charged rounds released"
        )
        if stated.get("votes"):
            released = sum(one["released"] for one in stated["votes"])
            print(f"  rounds of votes released: {released} of {len(stated['votes'])}")
        if stated["version"] < 3:
            print(
                "  its certificate is of an older form: the ε in it is of the rounds that ran, "
                "and no promise"
            )
        elif stated["promise_alone"]:
            least = stated["promise_alone"]["epsilon"]
            print(
                "  promised against the coordinator with all other sites: "
                f"ε = {epsilon_text(math.inf if least is None else least)}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
