"""Writes a recipe's documents: the one for sites, which the digest covers, and `recipe.toml`.

The document is canonical JSON (sorted keys, no spaces, UTF-8): `format`, then every section but
`machine` and `tracking` with every field; null means an absent value. Fields that were added later
(`cloister.fields.LATER`) are named only if they have a value. `strategy` has `name` and the options
of that strategy with their values; a plug-in also has `distribution` and `version`, which no
built-in strategy has, and `task` has a table `plugin` for plug-ins only. Its SHA-256 is the study's
digest. A study of votes has one section more, `votes`, with every field.
Values that depend on the base (`model.pooling = "auto"`, an empty `lora.target_modules`) stay as
written: a site computes the digest before any base is loaded, and `model.sha256` fixes the base.
TOML has no null, so `recipe.toml` names absent values in a list `absent = ["data.person", …]`.

A version that removes or reinterprets a field, or adds one that is not a `LATER` field, must
increase `FORMAT`. Runs that began under an earlier format finish under it, with the meaning that
their fields had then. Format 1 was a TOML file whose digest did not cover absent values and
defaults in code. Format 2 had no `model.normalize`, and its `model.pooling = "auto"` is today's
`trained`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import tomli_w

from cloister.canonical import canonical
from cloister.fields import as_table, later_fields, whole_table
from cloister.strategies.config import (
    COMMON,
    FIELDS,
    CarriedStrategy,
    PluginStrategy,
    StrategyConfig,
)
from cloister.tasks.config import TaskConfig
from cloister.training.machine import MachineConfig

FORMAT, LAST_FORMAT, OLD_FORMAT = 3, 2, 1
# Sections that are not sent to sites: each party has its own.
KEPT = ("machine", "tracking")
# Fields that format 1 had in `[training]`, with their defaults.
OLD_MACHINE = MachineConfig(physical_batch_tokens=2048, frozen_cache_gib=4.0)

HEADER = """\
# The whole study as it runs: every field with its value. The fields in `absent` have none. All but
# [machine] and [tracking] is covered by the study's digest.
"""

# The fields of format 1. It ended when this list was written; new fields are not in its digest.
OLD_FIELDS = {
    "study": "name seed",
    "model": "base sha256 dtype quantization pooling",
    "lora": "r ranks alpha target_modules top_layers train residual head use_dora",
    "task": "kind labels max_length chat_template",
    "data": "train test validation text label tokens tags messages site person sites partition "
    "alpha public_records",
    "training": "mode expected_batch_size local_steps learning_rate plain_learning_rate optimizer "
    "momentum weight_decay schedule warmup_steps update_dtype proximal personal probe_rounds "
    "physical_batch_tokens frozen_cache_gib",
    "privacy": "enabled unit max_records_per_person epsilon noise_multiplier delta max_grad_norm "
    "max_update_norm noise missing_sites colluding_sites secure_bits site_epsilon site_delta "
    "site_noise_forced site_budgets",
    "federation": "num_rounds min_sites round_timeout absent_timeout evaluate_every patience",
    "strategy": "name weights learning_rate momentum second_momentum adaptivity byzantine selected "
    "multiple",
    "tracking": "tensorboard aggregation_error_mib",
}

Sections = Mapping[str, object]
Tables = dict[str, dict[str, object]]


def tables_of(sections: Sections) -> Tables:
    """Returns every field of every section, None if absent; for a strategy its options."""
    tables = {n: _table(s) for n, s in sections.items() if n != "strategy"}
    return {**tables, "strategy": _strategy_table(sections["strategy"])}


def _table(section: object) -> dict[str, object]:
    return section.table() if isinstance(section, TaskConfig) else whole_table(section)


def _strategy_table(strategy: object) -> dict[str, object]:
    if isinstance(strategy, CarriedStrategy):
        return {"name": strategy.name, **json.loads(strategy.options)}
    if isinstance(strategy, PluginStrategy):
        return strategy.table()
    assert isinstance(strategy, StrategyConfig)
    whole = whole_table(strategy)
    common = [key for key in COMMON if key in whole]
    return {key: whole[key] for key in ("name", *sorted(FIELDS[strategy.name]), *common)}


def as_written(tables: Tables) -> Tables:
    """Converts today's tables to those of formats before 3."""
    model = {key: value for key, value in tables["model"].items() if key != "normalize"}
    if model["pooling"] == "trained":
        model["pooling"] = "auto"
    return {**tables, "model": model}


def as_begun(table: Mapping[str, object]) -> dict[str, object]:
    """Converts a `[model]` table of a format before 3 to today's fields."""
    meant = {"pooling": "trained"} if table.get("pooling") == "auto" else {}
    return {**table, **meant, "normalize": None}


def _tables(sections: Sections, version: int) -> Tables:
    tables = tables_of(sections)
    if version == FORMAT:
        return tables
    # Leave out fields that those formats did not have, so that a document with more is refused.
    later = {name: later_fields(type(section)) for name, section in sections.items()}
    known = {n: {k: v for k, v in t.items() if k not in later[n]} for n, t in tables.items()}
    return as_written(known)


def document(sections: Sections, version: int = FORMAT) -> str:
    """Returns the document of a resolved study, in the format in which the study began."""
    sent = {n: table for n, table in _tables(sections, version).items() if n not in KEPT}
    return canonical({"format": version, **sent}).decode()


def toml(sections: Sections, version: int = FORMAT) -> str:
    """Returns a resolved study as TOML, with the sections that are not sent to sites."""
    tables = _tables(sections, version)
    absent = [f"{n}.{k}" for n, table in tables.items() for k, v in table.items() if v is None]
    stated = {n: {k: v for k, v in table.items() if v is not None} for n, table in tables.items()}
    return HEADER + tomli_w.dumps({"format": version, "absent": absent, **stated})


def old_tables(sections: Sections, begun: MachineConfig) -> Tables:
    """Returns a study's tables in format 1: without absent values."""
    tables: Tables = {}
    for name, keys in OLD_FIELDS.items():
        section = sections[name]
        if isinstance(section, CarriedStrategy | PluginStrategy):
            tables[name] = _strategy_table(section)
            continue
        values = as_table(section)
        if name == "model":
            values = as_written({"model": values})["model"]
        if name == "training":
            values |= as_table(begun)
        tables[name] = {key: values[key] for key in keys.split() if key in values}
    return tables


def old_toml(sections: Sections, begun: MachineConfig) -> str:
    """Returns a run's `recipe.toml` in format 1."""
    return tomli_w.dumps(old_tables(sections, begun))


def old_digest(sections: Sections, begun: MachineConfig) -> str:
    """Returns the digest of a study that was begun under format 1."""
    text = json.dumps(old_tables(sections, begun), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def old_document(sections: Sections, begun: MachineConfig) -> str:
    """Returns the document for sites of a study that began under format 1, with that digest.

    It is today's document, with the machine settings that its digest covers as `begun`, and the
    section `tracking`.
    """
    tables = {n: table for n, table in _tables(sections, OLD_FORMAT).items() if n != "machine"}
    tables["strategy"] = old_tables(sections, begun)["strategy"]
    return canonical({"format": OLD_FORMAT, "begun": whole_table(begun), **tables}).decode()
