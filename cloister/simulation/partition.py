"""Deals a simulation's records to sites, with flwr-datasets' partitioners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cloister.data.config import DataConfig
from cloister.data.records import Record, TextRecord
from cloister.data.unit_column import UNIT
from cloister.data.values import shown
from cloister.errors import DataError, UsageError
from cloister.names import site_names
from cloister.seeds import child_generator, child_seed

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

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
    from datasets import Dataset  # loads pandas, and flwr_datasets loads matplotlib

    table = Dataset.from_dict({"index": range(len(shuffled)), "key": _keys(shuffled, config)})
    partitioner = _partitioner(config, seed, len(shuffled))
    partitioner.dataset = table
    sites: dict[str, list[Record]] = {}
    for number, name in enumerate(site_names(config.sites)):
        dealt = partitioner.load_partition(number)["index"]
        sites[name] = [shuffled[index] for index in dealt]
    return _checked(sites)


def _partitioner(config: DataConfig, seed: int, count: int) -> Partitioner:
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, SizePartitioner

    if config.partition == "dirichlet":
        return DirichletPartitioner(
            num_partitions=config.sites,
            partition_by="key",
            alpha=config.alpha,
            min_partition_size=0,
            self_balancing=False,
            seed=child_seed(seed, "partition", "dirichlet") % 2**31,
        )
    if config.partition == "quantity":
        shares = child_generator(seed, "partition", "quantity").dirichlet(
            np.full(config.sites, config.alpha)
        )
        bounds = np.rint(np.cumsum(shares) * count).astype(int)
        sizes = [int(size) for size in np.diff(bounds, prepend=0)]
        _refuse_empty(dict(zip(site_names(config.sites), sizes, strict=True)))
        return SizePartitioner(sizes)
    return IidPartitioner(num_partitions=config.sites)


def _keys(records: Sequence[Record], config: DataConfig) -> list[str]:
    if config.partition != "dirichlet":
        return [""] * len(records)
    if not all(isinstance(record, TextRecord) for record in records):
        raise UsageError(NO_LABELS)
    return [record.label for record in records if isinstance(record, TextRecord)]


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
