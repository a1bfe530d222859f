"""Reads the records of a study whose data are in memory, with the same checks as for files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from os import PathLike

from cloister.api.memory_tables import records_in
from cloister.bounds import shortened
from cloister.data.config import DataConfig
from cloister.data.records import Record, RecordKind
from cloister.errors import UsageError
from cloister.names import LONGEST, is_name
from cloister.recipe import Recipe
from cloister.tasks.public_labels import study_labels


def records_of(recipe: Recipe, sources: Mapping[str, object]) -> dict[str, tuple[Record, ...]]:
    """Reads the tables in memory as records.

    Raises:
        DataError: A row lacks what the task needs, or a label that the public sets do not have.
    """
    held = {
        split: source
        for split, source in sources.items()
        if source is not None and not isinstance(source, str | PathLike)
    }
    if not held:
        return {}
    kind, data = recipe.task.records, recipe.data
    tables = {
        split: _site_tables(source, kind, data)
        if isinstance(source, Mapping)
        else records_in(
            source,
            "data" if split == "train" else split,
            kind,
            data,
            train=split == "train",
            sites=split == "train" and data.partition == "column",
        )
        for split, source in held.items()
    }
    _check_public(recipe, tables)
    return tables


def _site_tables(
    sites: Mapping[str, object], kind: RecordKind, data: DataConfig
) -> tuple[Record, ...]:
    """Returns the records of all sites' tables, each with its site."""
    unfit = [name for name in sites if not isinstance(name, str) or not is_name(name)]
    if unfit:
        raise UsageError(
            f"data: {shortened(unfit[0])} given as a site's name; it becomes part of file names: "
            f"needed are at most {LONGEST} bytes, visible characters without / or \\, "
            "and no dot at the start"
        )
    return tuple(
        dataclasses.replace(record, site=name)
        for name in sorted(sites)
        for record in records_in(sites[name], name, kind, data, train=True, sites=False)
    )


def _check_public(recipe: Recipe, tables: Mapping[str, tuple[Record, ...]]) -> None:
    """Checks public sets in memory by the same rules as files of them.

    Raises:
        UsageError: The training data are given as a public set.
        DataError: Training data have labels that the study does not have.
    """
    training = tables.get("train", ())
    private = [_bare(training), *(_bare(own) for own in _by_site(training))]
    for split in ("test", "validation"):
        if split in tables and _bare(tables[split]) in private:
            raise UsageError(
                f"{split}: the training data, or one site's, given; scores on private records are "
                "releases that nobody charges: give a public set"
            )
    public = {split: records for split, records in tables.items() if split != "train"}
    is_whole = {"train", "test"} <= tables.keys() and (
        recipe.data.validation is None or "validation" in tables
    )
    if is_whole:
        study_labels(recipe.task.labels, recipe.task.kind, {"data": tables["train"]}, public)


def _by_site(records: tuple[Record, ...]) -> list[tuple[Record, ...]]:
    """Returns the records of each site, if records name their sites."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.site is not None:
            found.setdefault(record.site, []).append(record)
    return [tuple(own) for own in found.values()]


def _bare(records: tuple[Record, ...]) -> list[Record]:
    return [dataclasses.replace(record, site=None, person=None) for record in records]
