"""Deals a simulation's records to sites."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from cloister.data.config import DataConfig
from cloister.data.records import Record, TextRecord
from cloister.data.unit_column import UNIT
from cloister.data.values import shown
from cloister.errors import DataError, UsageError
from cloister.names import site_names
from cloister.seeds import child_generator, child_seed

NO_PERSON = 'data.person: name the column of persons for data.partition = "person"'
NO_LABELS = (
    'data.partition: "dirichlet" skews labels, but these records have none; '
    'use "iid", "quantity", "column" or "person"'
)


def partition(records: Sequence[Record], config: DataConfig, seed: int) -> dict[str, list[Record]]:
    """Deals every record to exactly one site.

    Args:
        records: All records.
        config: The number of sites, and the partition.
        seed: The study's seed.

    Returns:
        Records by site, sites in order of their names, records in an order drawn from the seed.

    Raises:
        UsageError: The partition does not fit the records.
        DataError: A site would be empty, or a record's copies name another site or person.

    Guarantees:
        Records of one `unit` are dealt together. If copies were dealt separately, several sites
        would each protect a part of one record, and their ε would add up.
    """
    rows: dict[str, list[Record]] = {}
    firsts: list[Record] = []
    for record in records:
        if record.unit is None or record.unit not in rows:
            firsts.append(record)
        if record.unit is not None:
            rows.setdefault(record.unit, []).append(record)
    for unit, made in rows.items():
        if any((row.site, row.person) != (made[0].site, made[0].person) for row in made):
            raise DataError(
                f"{UNIT} {shown(unit)!r}: its rows are copies of one record but name several sites "
                "or persons; correct them"
            )
    sites = _dealt(firsts, config, seed)
    return {
        name: [row for first in dealt for row in (rows[first.unit] if first.unit else [first])]
        for name, dealt in sites.items()
    }


def _dealt(records: Sequence[Record], config: DataConfig, seed: int) -> dict[str, list[Record]]:
    order = child_generator(seed, "partition", "order").permutation(len(records))
    shuffled = [records[index] for index in order]
    if config.partition == "column":
        return _by_column(shuffled, config)
    if config.partition == "person":
        return _checked(_by_person(shuffled, config))
    if len(shuffled) < config.sites:  # a better message than the partitioners' own
        _refuse_empty(dict.fromkeys(site_names(config.sites)[len(shuffled) :], 0))
    parts = _parts(shuffled, config, seed)
    sites = {
        name: [shuffled[index] for index in part]
        for name, part in zip(site_names(config.sites), parts, strict=True)
    }
    return _checked(sites)


def _parts(records: Sequence[Record], config: DataConfig, seed: int) -> list[list[int]]:
    """Returns the places of each site's records, which are those that flwr-datasets' partitioners
    give; without it, because it loads datasets, pandas and matplotlib for 1.6 s of CPU time."""
    count = len(records)
    if config.partition == "dirichlet":
        return _by_label(records, config, child_seed(seed, "partition", "dirichlet") % 2**31)
    if config.partition == "quantity":
        shares = child_generator(seed, "partition", "quantity").dirichlet(
            np.full(config.sites, config.alpha)
        )
        bounds = np.rint(np.cumsum(shares) * count).astype(int)
        sizes = [int(size) for size in np.diff(bounds, prepend=0)]
        _refuse_empty(dict(zip(site_names(config.sites), sizes, strict=True)))
    else:  # the first sites get one more
        sizes = [(count + config.sites - 1 - site) // config.sites for site in range(config.sites)]
    ends = accumulate(sizes)
    return [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def _by_label(records: Sequence[Record], config: DataConfig, seed: int) -> list[list[int]]:
    """Deals each label's records by shares of its own, from a Dirichlet distribution (Yurochkin et
    al. 2019, arXiv:1905.12022)."""
    if not all(isinstance(record, TextRecord) for record in records):
        raise UsageError(NO_LABELS)
    places: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        assert isinstance(record, TextRecord)
        places.setdefault(record.label, []).append(place)
    generator = np.random.default_rng(seed)
    parts: list[list[int]] = [[] for _ in range(config.sites)]
    for _, own in sorted(places.items()):
        shares = generator.dirichlet(np.full(config.sites, config.alpha))
        ends = (np.cumsum(shares) * len(own)).astype(int).tolist()
        for part, (start, end) in zip(parts, pairwise([0, *ends[:-1], len(own)]), strict=True):
            part += own[start:end]
    for part in parts:
        generator.shuffle(part)
    return parts


def _by_column(records: Sequence[Record], config: DataConfig) -> dict[str, list[Record]]:
    named: dict[str, list[Record]] = {}
    for record in records:
        if record.site is None:
            raise DataError(
                f"data.site: a record has no {config.site!r}; correct it, or choose another "
                "data.partition"
            )
        named.setdefault(record.site, []).append(record)
    if len(named) != config.sites:
        raise UsageError(
            f"data.sites: {config.sites} given, but column {config.site!r} names {len(named)} "
            f"({', '.join(sorted(named)[:5])}{', …' if len(named) > 5 else ''}); "
            f"set data.sites = {len(named)}"
        )
    return {name: named[name] for name in sorted(named)}


def _by_person(records: Sequence[Record], config: DataConfig) -> dict[str, list[Record]]:
    """Deals persons in the order of their first record, one site after the other."""
    if config.person is None:
        raise UsageError(NO_PERSON)
    names = site_names(config.sites)
    home: dict[str | None, str] = {}
    sites: dict[str, list[Record]] = {name: [] for name in names}
    for record in records:
        site = home.setdefault(record.person, names[len(home) % len(names)])
        sites[site].append(record)
    return sites


def _checked(sites: dict[str, list[Record]]) -> dict[str, list[Record]]:
    _refuse_empty({name: len(records) for name, records in sites.items()})
    return sites


def _refuse_empty(sizes: dict[str, int]) -> None:
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        raise DataError(
            f"{empty[0]} would have no record; use fewer data.sites, a larger data.alpha or "
            "another data.partition"
        )
