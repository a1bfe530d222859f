"""Runs with an old digest, which left out absent values and defaults, finish under it."""

import dataclasses
import hashlib
import json
import tomllib
from pathlib import Path

import pytest
import tomli_w

from cloister.errors import RecipeError
from cloister.fields import field_types, later_fields
from cloister.recipe import (
    Recipe,
    parse_document,
    parse_recipe,
    read_recipe,
    read_run_recipe,
    sent_document,
    warnings,
)
from cloister.recipe.document import OLD_MACHINE
from cloister.server.run_directory import RunDirectory

# What the version before wrote for the default study, and its digest.
OLD_TOML = """\
[study]
name = "hospital-triage"
seed = 0

[model]
base = "sentence-transformers/all-MiniLM-L6-v2"
sha256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
dtype = "float32"
quantization = "none"
pooling = "auto"

[lora]
r = 4
ranks = []
alpha = 8.0
target_modules = []
top_layers = 1
train = "b"
residual = 0
use_dora = false

[task]
kind = "sequence-classification"
labels = []
max_length = 128

[data]
train = "synthetic:hospitals"
text = "text"
label = "label"
tokens = "tokens"
tags = "tags"
messages = "messages"
site = "site"
sites = 4
partition = "column"
alpha = 0.3
public_records = 1200

[training]
mode = "gradient-rounds"
expected_batch_size = 300
local_steps = 1
learning_rate = 1.0
plain_learning_rate = 0.4
optimizer = "sgd"
momentum = 0.0
weight_decay = 0.0
schedule = "warmup-linear"
warmup_steps = 0
update_dtype = "float32"
proximal = 0.0
personal = false
probe_rounds = 0
physical_batch_tokens = 2048
frozen_cache_gib = 4.0

[privacy]
enabled = true
unit = "record"
max_records_per_person = 8
delta = 1e-05
max_grad_norm = 8.0
max_update_norm = 50.0
noise = "site"
missing_sites = 0
colluding_sites = 1
secure_bits = 32
site_delta = 1e-05
site_noise_forced = false
site_budgets = []

[federation]
num_rounds = 30
round_timeout = 3600.0
absent_timeout = 120.0
evaluate_every = 1

[strategy]
name = "fedavg"
weights = []

[tracking]
tensorboard = true
aggregation_error_mib = 64.0
"""
OLD_DIGEST = "0c96a73f7c9e8fd5e7aa094e0f00df911b09e68534b16b884ebe5ca5f11fd292"


def old_text(changes: dict[str, dict[str, object]] | None = None) -> str:
    """A `recipe.toml` as the version before wrote it."""
    return tomli_w.dumps(old_tables(changes))


def old_tables(changes: dict[str, dict[str, object]] | None = None) -> dict[str, dict[str, object]]:
    tables = tomllib.loads(OLD_TOML)
    for section, fields in (changes or {}).items():
        tables[section] |= fields
    return tables


def old_digest(tables: dict[str, dict[str, object]]) -> str:
    """The digest as the version before computed it."""
    text = json.dumps(tables, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


CHANGES: list[dict[str, dict[str, object]]] = [
    {},
    {"training": {"physical_batch_tokens": 64, "frozen_cache_gib": 0.0}},
    {"strategy": {"name": "fedadam"}},
    {"strategy": {"name": "fedadam", "learning_rate": 0.3}},
    {"privacy": {"epsilon": 3.0, "unit": "person"}, "data": {"person": "p"}},
    {"task": {"labels": ["ä", "b"]}, "tracking": {"tensorboard": False}},
    {"lora": {"head": "frozen"}, "federation": {"min_sites": 3}},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_an_old_run_keeps_its_digest_at_the_coordinator_and_at_sites(
    tmp_path: Path, changes: dict[str, dict[str, object]]
) -> None:
    (tmp_path / "recipe.toml").write_text(old_text(changes), encoding="utf-8")
    recipe = RunDirectory.reopen(tmp_path).recipe()
    assert recipe.digest() == old_digest(old_tables(changes))
    received = parse_document(sent_document(recipe))
    assert received.digest() == recipe.digest()
    assert tomllib.loads(recipe.to_toml()) == old_tables(changes)


def test_the_old_digest_is_the_one_that_was() -> None:
    assert old_text() == OLD_TOML
    assert old_digest(old_tables()) == OLD_DIGEST != Recipe().digest()


def test_an_old_run_spends_what_it_said_of_its_machine(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(old_text({"training": {"physical_batch_tokens": 64}}), encoding="utf-8")
    assert read_run_recipe(path).machine.physical_batch_tokens == 64
    assert warnings(read_run_recipe(path)) == []


def test_an_old_file_that_is_started_from_is_a_study_of_today(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(OLD_TOML, encoding="utf-8")
    recipe = read_recipe(path)
    assert recipe == dataclasses.replace(Recipe(), machine=OLD_MACHINE)
    assert recipe.digest() == Recipe().digest()


def test_machine_settings_where_they_were_are_taken_and_said() -> None:
    moved = "physical_batch_tokens = 64\nfrozen_cache_gib = 0\n"
    recipe = parse_recipe(f"[training]\nlearning_rate = 1.0\n{moved}")
    assert recipe.machine.physical_batch_tokens == 64
    assert recipe.machine.frozen_cache_gib == 0.0
    assert recipe.digest() == Recipe().digest()
    assert ["machine.physical_batch_tokens" in warnings(recipe)[0], len(warnings(recipe))] == [
        True,
        2,
    ]
    assert warnings(parse_recipe("", ["training.frozen_cache_gib=0"]))
    with pytest.raises(RecipeError, match=r"training\.frozen_cache_gib: also given in \[machine\]"):
        parse_recipe("[training]\nfrozen_cache_gib = 0\n[machine]\nfrozen_cache_gib = 1\n")


@pytest.mark.parametrize("take", ["num_rounds = 30\n", "[strategy]\n", 'name = "fedavg"\n'])
def test_a_run_s_file_of_today_is_whole_or_refused(tmp_path: Path, take: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(Recipe().to_toml(), encoding="utf-8")
    assert read_run_recipe(path) == Recipe().resolved()
    path.write_text(Recipe().to_toml().replace(take, "", 1), encoding="utf-8")
    with pytest.raises(RecipeError, match="missing"):
        read_run_recipe(path)


def test_a_run_s_file_states_every_field(tmp_path: Path) -> None:
    tables = tomllib.loads(Recipe().to_toml())
    absent = set(tables["absent"])
    for name, section in Recipe().resolved().sections().items():
        for key in field_types(type(section)):
            if name != "strategy" and key not in later_fields(type(section)):
                assert (key in tables[name]) != (f"{name}.{key}" in absent), key
    assert tables["privacy"]["epsilon"] == 8.0
