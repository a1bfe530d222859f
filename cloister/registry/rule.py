"""A registry's own rule: how many people must promote a version, and their keys.

`registry.json`: {"version": 1, "needs": 2, "approvers": {"alice": "hex of an Ed25519 key", …}}

Anyone who can write the registry can change this file too. Restrict writing by the folder's
permissions or the bucket's policy. Without the file, one person promotes, without a signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloister.errors import BadFileError, UsageError
from cloister.json_text import read_json
from cloister.names import is_name
from cloister.registry.store import Store

FILE = "registry.json"
# Longest rule, in bytes: 1,000 people with a name and a key each.
MOST_BYTES = 2**18
# Most people that a rule may require: with more, nothing would ever be promoted.
MOST_NEEDED = 20


@dataclass(frozen=True)
class PromotionRule:
    """How many people must promote a version, and who may.

    Attributes:
        needs: How many different people must promote.
        approvers: Public keys by person, in hex; empty: anybody may, without a signature.
    """

    needs: int = 1
    approvers: Mapping[str, str] = field(default_factory=dict)


def read_rule(store: Store) -> PromotionRule:
    """Reads the registry's rule; the default rule if it has none.

    Raises:
        BadFileError: The file is damaged.
    """
    content = store.read(FILE)
    if content is None:
        return PromotionRule()
    try:
        table = read_json(content, most_bytes=MOST_BYTES)
        if table["version"] != 1:
            raise ValueError("of another version")
        found = PromotionRule(table["needs"], dict(table["approvers"]))
        _check(found)
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise BadFileError(
            f"{FILE} of the registry: damaged ({error}); restore it, as it says who may promote"
        ) from error
    return found


def write_rule(store: Store, rule: PromotionRule) -> None:
    """Writes the registry's rule.

    Raises:
        UsageError: More people are needed than have keys, or a name or key is invalid.
    """
    _check(rule)
    document = {"version": 1, "needs": rule.needs, "approvers": dict(rule.approvers)}
    store.write(FILE, json.dumps(document, indent=2).encode())


def _check(rule: PromotionRule) -> None:
    if type(rule.needs) is not int or not 1 <= rule.needs <= MOST_NEEDED:
        raise UsageError(f"needs: {rule.needs} given; needed is a number from 1 to {MOST_NEEDED}")
    for name, key in rule.approvers.items():
        if not is_name(name):
            raise UsageError(f"approver {name!r}: not a valid name; use letters and digits")
        if not isinstance(key, str) or len(key) != 64 or set(key) - set("0123456789abcdef"):
            raise UsageError(f"the key of {name}: 64 lower-case hex digits are needed")
    if len(set(rule.approvers.values())) != len(rule.approvers):
        raise UsageError("approvers: two people have the same key; give each a key of their own")
    if rule.needs > max(len(rule.approvers), 1):
        raise UsageError(
            f"needs: {rule.needs} people must promote, but only {len(rule.approvers)} have "
            "keys; add --approver NAME=HEX for each"
        )
