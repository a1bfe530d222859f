"""Holds a share of each simulated site's units out of training, as an institution does.

An institution chooses them by a secret key. Here the key follows from the study's seed, so that a
run can be repeated; nobody needs to be kept from guessing it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from cloister.data.held_out import HeldOut, sides
from cloister.data.records import Record
from cloister.data.unit_hash import side_digests
from cloister.errors import DataError

BySite = dict[str, list[Record]]


def held_apart(
    sites: Mapping[str, list[Record]], share: float | None, seed: int
) -> tuple[BySite, BySite]:
    """Splits each site's records into those that are trained on and those that are held out.

    Args:
        sites: Records by site.
        share: The share of units; None: nothing is held out.
        seed: The study's; another one holds out other units.

    Returns:
        The records that are trained on, and those that are held out, by site; the second is empty
        without a share.

    Raises:
        DataError: All of a site's records are on one side.
    """
    if share is None:
        return dict(sites), {}
    train: BySite = {}
    apart: BySite = {}
    for name, records in sites.items():
        key = hashlib.sha256(f"held-out {seed} {name}".encode("utf-8", "surrogatepass")).digest()
        train[name], apart[name] = sides(records, side_digests(records), HeldOut(key, share))
        if not train[name] or not apart[name]:
            raise DataError(
                f"data.held_out_share: {share:g} of the {len(records)} records of {name} leaves "
                "none on one side; take more records or another share"
            )
    return train, apart
