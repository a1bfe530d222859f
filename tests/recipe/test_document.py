"""The document for sites is complete, canonical and covered by the digest."""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloister.bounds import Between, Items, Text
from cloister.errors import RecipeError, UsageError
from cloister.fields import field_types, later_fields
from cloister.recipe import (
    Recipe,
    parse_document,
    parse_recipe,
    read_recipe,
    read_run_recipe,
    sent_document,
    validated,
)
from cloister.recipe.document import FORMAT, KEPT
from cloister.recipe.read import KINDS
from cloister.strategies import build
from cloister.strategies.build import make_strategy
from cloister.strategies.config import FIELDS, CarriedStrategy, StrategyConfig
from cloister.training.machine import MachineConfig

# The document of the default study, byte for byte. It changes when a field or a default does; then
# `cloister.recipe.document.FORMAT` is raised too if a field was taken away or reinterpreted, or one
# was added that is no `cloister.fields.LATER` field.
GOLDEN = (
    '{"data":{"alpha":0.3,"label":"label","messages":"messages","partition":"column",'
    '"person":null,"public_records":1200,"site":"site","sites":4,"tags":"tags","test":null,'
    '"text":"text","tokens":"tokens","train":"synthetic:hospitals","validation":null},'
    '"federation":{"absent_timeout":120.0,"evaluate_every":1,"min_sites":null,"num_rounds":30,'
    '"patience":null,"round_timeout":3600.0},"format":3,"lora":{"alpha":8.0,"head":"linear",'
    '"r":4,"ranks":[],"residual":0,"target_modules":[],"top_layers":1,"train":"b",'
    '"use_dora":false},"model":{"base":"sentence-transformers/all-MiniLM-L6-v2",'
    '"dtype":"float32","normalize":null,"pooling":"auto","quantization":"none",'
    '"sha256":"53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},'
    '"privacy":{"colluding_sites":1,"delta":1e-05,"enabled":true,"epsilon":8.0,'
    '"max_grad_norm":8.0,"max_records_per_person":8,"max_update_norm":50.0,"missing_sites":0,'
    '"noise":"site","noise_multiplier":null,"secure_bits":32,"site_budgets":[],'
    '"site_delta":1e-05,"site_epsilon":null,"site_noise_forced":false,"unit":"record"},'
    '"strategy":{"name":"fedavg","weights":[]},"study":{"name":"hospital-triage","seed":0},'
    '"task":{"chat_template":null,"kind":"sequence-classification","labels":[],'
    '"max_length":128},"training":{"expected_batch_size":300,"learning_rate":1.0,'
    '"local_steps":1,"mode":"gradient-rounds","momentum":0.0,"optimizer":"sgd",'
    '"personal":false,"plain_learning_rate":0.4,"probe_rounds":0,"proximal":0.0,'
    '"schedule":"warmup-linear","update_dtype":"float32","warmup_steps":0,"weight_decay":0.0}}'
)
GOLDEN_DIGEST = "7d4cb26b34eefb5be5a9804a9a330d3f4e4b561e38199fb80fba71c24fcf5d5e"
# The same of format 2, whose runs finish under it.
GOLDEN_2 = (
    '{"data":{"alpha":0.3,"label":"label","messages":"messages","partition":"column",'
    '"person":null,"public_records":1200,"site":"site","sites":4,"tags":"tags","test":null,'
    '"text":"text","tokens":"tokens","train":"synthetic:hospitals","validation":null},'
    '"federation":{"absent_timeout":120.0,"evaluate_every":1,"min_sites":null,"num_rounds":30,'
    '"patience":null,"round_timeout":3600.0},"format":2,"lora":{"alpha":8.0,"head":"linear",'
    '"r":4,"ranks":[],"residual":0,"target_modules":[],"top_layers":1,"train":"b",'
    '"use_dora":false},"model":{"base":"sentence-transformers/all-MiniLM-L6-v2",'
    '"dtype":"float32","pooling":"auto","quantization":"none",'
    '"sha256":"53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},'
    '"privacy":{"colluding_sites":1,"delta":1e-05,"enabled":true,"epsilon":8.0,'
    '"max_grad_norm":8.0,"max_records_per_person":8,"max_update_norm":50.0,"missing_sites":0,'
    '"noise":"site","noise_multiplier":null,"secure_bits":32,"site_budgets":[],'
    '"site_delta":1e-05,"site_epsilon":null,"site_noise_forced":false,"unit":"record"},'
    '"strategy":{"name":"fedavg","weights":[]},"study":{"name":"hospital-triage","seed":0},'
    '"task":{"chat_template":null,"kind":"sequence-classification","labels":[],'
    '"max_length":128},"training":{"expected_batch_size":300,"learning_rate":1.0,'
    '"local_steps":1,"mode":"gradient-rounds","momentum":0.0,"optimizer":"sgd",'
    '"personal":false,"plain_learning_rate":0.4,"probe_rounds":0,"proximal":0.0,'
    '"schedule":"warmup-linear","update_dtype":"float32","warmup_steps":0,"weight_decay":0.0}}'
)
GOLDEN_2_DIGEST = "0d33d2e4b52b226c24a734367ae024c41c49b36c3cc1fb35f0e02f468acfa990"

# Fields of `[task]` that conversations alone have.
OF_CHATS = ("truncation_side", "loss", "dpo_beta")
ANSWERS: dict[str, Any] = {"kind": "retrieval", "passages": (("a", "rest"), ("b", "sleep"))}
SCORES: dict[str, Any] = {"kind": "scoring", "score_range": (0.0, 6.0)}
SHOPS: dict[str, Any] = {"kind": "recommendation", "items": "items.jsonl"}
PAIRS: dict[str, Any] = {"kind": "text-pairs", "labels": ("a", "b"), "encoder": "bi"}
OF_LABELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "class_weights": ({}, {"class_weights": {"a": 2.0}}),
    "score_range": (SCORES, {**SCORES, "score_range": (0.0, 12.0)}),
    "score_step": (SCORES, {**SCORES, "score_step": 1.0}),
    "passages": (ANSWERS, {**ANSWERS, "passages": (("a", "rest"), ("b", "sleep well"))}),
    "negatives": (ANSWERS, {**ANSWERS, "negatives": "public"}),
    "temperature": (ANSWERS, {**ANSWERS, "temperature": 0.1}),
    "items": (SHOPS, {**SHOPS, "items": "others.jsonl"}),
    "items_sha256": (SHOPS, {**SHOPS, "items_sha256": "0" * 64}),
    "last_items": (SHOPS, {**SHOPS, "last_items": 3}),
    "encoder": ({**PAIRS, "encoder": "cross"}, PAIRS),
    "compare": (PAIRS, {**PAIRS, "compare": "cosine"}),
}
# Sections that a site reads.
SENT = [name for name in KINDS if name not in KEPT]


def sent_fields() -> list[tuple[str, str]]:
    """Every field of every section that is sent; of a strategy those of a method that has it."""
    return [(name, key) for name in SENT for key in field_types(KINDS[name])]


def problems(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_document(text)
    return str(caught.value)


def changed(text: str, *path: str, value: object = None, take_away: bool = False) -> str:
    """A document with one value changed, in canonical form again."""
    fields = json.loads(text)
    table = fields
    for key in path[:-1]:
        table = table[key]
    if take_away:
        del table[path[-1]]
    else:
        table[path[-1]] = value
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def others(hint: Any) -> Iterator[object]:
    """Values that a field of this type can have, by its own bounds."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        bound = arguments[1]
        if isinstance(bound, Between):
            yield type(arguments[0]())(bound.least)
            yield type(arguments[0]())((bound.least + min(bound.most, 1e4)) / 2)
        elif isinstance(bound, Text):
            yield from ("x", "a" * min(64, bound.most), "b" * min(64, bound.most), "x {text}")
        else:
            assert isinstance(bound, Items)
            for item in others(typing.get_args(arguments[0])[0]):
                yield (item,)
    elif origin is typing.Literal:
        yield from arguments
    elif arguments:
        for member in arguments:
            yield from [None] if member is type(None) else others(member)
    elif hint is bool:
        yield from (False, True)
    else:
        yield from hint


# Fields that need another one, with two values of each.
OF_PUBLIC: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "public": ({"public": "a.jsonl"}, {"public": "b.jsonl"}),
    "public_sha256": ({"public": "a.jsonl"}, {"public": "a.jsonl", "public_sha256": "0" * 64}),
    "public_count": ({"public": "a.jsonl"}, {"public": "a.jsonl", "public_count": 5}),
    "center_values": (
        {"center": "public", "center_values": (1.0,)},
        {"center": "public", "center_values": (1.0, 2.0)},
    ),
    "averaging": ({}, {"averaging": "ema"}),
    "evaluation_noise_multiplier": (
        {"evaluation_rounds": (2,)},
        {"evaluation_rounds": (2,), "evaluation_noise_multiplier": 5.0},
    ),
    "averaging_decay": (
        {"averaging": "ema", "averaging_decay": 0.5},
        {"averaging": "ema", "averaging_decay": 0.6},
    ),
    "averaging_share": (
        {"averaging": "tail", "averaging_share": 0.5},
        {"averaging": "tail", "averaging_share": 0.6},
    ),
}


def with_another_value(recipe: Recipe, name: str, key: str) -> Iterator[Recipe]:
    """Recipes that differ in one field alone, as far as that section allows."""
    section = getattr(recipe, name)
    for value in others(field_types(type(section))[key]):
        if value == getattr(section, key):
            continue
        try:
            other = dataclasses.replace(section, **{key: value})
        except UsageError:
            continue
        yield dataclasses.replace(recipe, **{name: other})


def test_the_default_study_s_document_is_known_byte_by_byte() -> None:
    assert sent_document(Recipe()) == GOLDEN
    assert Recipe().digest() == GOLDEN_DIGEST == hashlib.sha256(GOLDEN.encode()).hexdigest()


def test_a_study_of_format_2_keeps_its_digest_and_what_its_fields_meant(tmp_path: Path) -> None:
    received = parse_document(GOLDEN_2)
    assert received.digest() == GOLDEN_2_DIGEST == hashlib.sha256(GOLDEN_2.encode()).hexdigest()
    assert sent_document(received) == GOLDEN_2
    assert received.model.pooling == "trained"  # what "auto" was: BERT's own pooler
    run = tmp_path / "recipe.toml"
    run.write_text(run_file_of_format_2(), encoding="utf-8")
    begun = read_run_recipe(run)
    assert begun.digest() == GOLDEN_2_DIGEST
    assert begun.model.pooling == "trained"
    run.write_text(begun.to_toml(), encoding="utf-8")
    assert read_run_recipe(run) == begun
    # Started from, it is a study of today.
    assert read_recipe(run) == Recipe().resolved()


def run_file_of_format_2() -> str:
    """The default study's `recipe.toml` as the version before wrote it."""
    text = Recipe().to_toml().replace("format = 3", "format = 2")
    return text.replace('    "model.normalize",\n', "")


@pytest.mark.parametrize("field", ["normalize", "pooling", "rslora"])
def test_a_document_of_format_2_says_no_more_and_no_less(field: str) -> None:
    if field == "normalize":
        text = changed(GOLDEN_2, "model", "normalize", value=True)
    elif field == "rslora":  # which came later still
        text = changed(GOLDEN_2, "lora", "rslora", value=True)
    else:  # its name for today's "auto", which it cannot mean
        text = changed(GOLDEN_2, "model", "pooling", value="trained")
    assert "canonical" in problems(text)


@pytest.mark.parametrize(("name", "key"), sent_fields())
def test_every_field_changes_the_digest(name: str, key: str) -> None:
    recipe = Recipe().resolved()
    if name == "strategy" and key != "name" and key not in OF_PUBLIC:
        method = next(method for method, own in FIELDS.items() if key in own)
        recipe = dataclasses.replace(recipe, strategy=StrategyConfig(name=method)).resolved()
    if (name, key) == ("privacy", "noise_multiplier"):  # stated instead of ε
        privacy = dataclasses.replace(recipe.privacy, epsilon=None, noise_multiplier=1.0)
        recipe = dataclasses.replace(recipe, privacy=privacy)
    if name == "training" and key != "mode":  # which allows more than one value of each
        training = dataclasses.replace(recipe.training, mode="local-steps", proximal=0.5)
        if key == "second_moment_floor":  # of one optimizer alone
            training = dataclasses.replace(training, optimizer="adam-bc")
        recipe = dataclasses.replace(recipe, training=training)
    if key == "rank_pattern":  # whose lines have a form of their own
        lora = dataclasses.replace(recipe.lora, rank_pattern=("query=2",))
        assert dataclasses.replace(recipe, lora=lora).digest() != recipe.digest()
        return
    if name == "task" and key in OF_LABELS:  # values with rules of their own
        tasks = [dataclasses.replace(recipe.task, **fields) for fields in OF_LABELS[key]]
        assert len({dataclasses.replace(recipe, task=task).digest() for task in tasks}) == 2
        return
    if name == "data" and key in ("encoding", "separator", "fold"):  # of a form, or of a file
        table = dataclasses.replace(recipe.data, train="a.csv", test="b.csv")
        said = {"encoding": "gb18030", "separator": "semicolon", "fold": "2/5"}[key]
        digests = {
            dataclasses.replace(recipe, data=data).digest()
            for data in (table, dataclasses.replace(table, **{key: said}))
        }
        assert len(digests) == 2
        return
    if key in OF_PUBLIC:  # of a public file, an average or an evaluation alone
        section = getattr(recipe, name)
        sections = [dataclasses.replace(section, **fields) for fields in OF_PUBLIC[key]]
        assert len({dataclasses.replace(recipe, **{name: one}).digest() for one in sections}) == 2
        return
    if name == "study" and key in ("start", "former"):  # hashes, both or none
        hashes = {"start": "a" * 64, "former": "b" * 64}
        studies = [
            dataclasses.replace(recipe.study, **{**hashes, key: digit * 64}) for digit in "cd"
        ]
        digests = {dataclasses.replace(recipe, study=study).digest() for study in studies}
        assert len({*digests, recipe.digest()}) == 3
        return
    if (name, key) == ("lora", "tokens"):  # of a prompt alone
        lora = dataclasses.replace(recipe.lora, method="prompt")
        recipe = dataclasses.replace(recipe, lora=lora).resolved()
    if name == "task" and key in OF_CHATS:
        loss = "dpo" if key == "dpo_beta" else None
        task = dataclasses.replace(recipe.task, kind="causal-lm", loss=loss)
        recipe = dataclasses.replace(recipe, task=task)
    # An absent option that is stated with its default is the same study.
    digests = {other.digest() for other in with_another_value(recipe, name, key)}
    assert digests - {recipe.digest()}
    table = json.loads(sent_document(recipe))[name]
    assert table.get(key) == whole(getattr(recipe, name))[key]
    assert key in table or key in later_fields(KINDS[name])


def whole(section: object) -> dict[str, object]:
    return json.loads(json.dumps(dataclasses.asdict(section)))  # type: ignore[call-overload,no-any-return]


def test_what_a_machine_spends_and_a_coordinator_keeps_is_not_sent() -> None:
    text = "[machine]\nphysical_batch_tokens = 64\n[tracking]\ntensorboard = false\n"
    own = parse_recipe(text, ["training.learning_rate=1.0"])
    assert own != Recipe()
    assert own.digest() == Recipe().digest()
    assert sent_document(own) == GOLDEN


@pytest.mark.parametrize("method", FIELDS)
def test_a_strategy_s_options_are_sent_with_the_values_in_force(method: str) -> None:
    recipe = dataclasses.replace(Recipe(), strategy=StrategyConfig(name=method))  # type: ignore[arg-type]
    options = json.loads(sent_document(recipe))["strategy"]
    assert options.keys() == {"name", *FIELDS[method]}  # type: ignore[index]
    assert None not in options.values()
    stated = StrategyConfig(**{k: tuple(v) if k == "weights" else v for k, v in options.items()})
    assert make_strategy(stated, ()) == make_strategy(recipe.strategy, ())


def test_another_default_in_code_is_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    adaptive = parse_recipe("", ["strategy.name=fedadam"])
    plain, before = Recipe().digest(), adaptive.digest()
    monkeypatch.setitem(build.DEFAULTS, "learning_rate", 0.05)
    assert adaptive.digest() != before
    monkeypatch.setattr("cloister.privacy.config.DEFAULT_EPSILON", 4.0)
    assert Recipe().digest() != plain
    assert json.loads(sent_document(Recipe()))["privacy"]["epsilon"] == 4.0


def test_a_document_gives_the_study_and_its_digest() -> None:
    recipe = parse_recipe(
        "",
        [
            "strategy.name=fedadam",
            'task.labels=["ä", "b"]',
            "privacy.unit=person",
            "data.person=p",
            "data.public_records=[300, 400, 500, 600]",
        ],
    )
    received = parse_document(sent_document(recipe))
    assert received.digest() == recipe.digest()
    assert received.digest() == hashlib.sha256(sent_document(recipe).encode()).hexdigest()
    carried = dataclasses.replace(recipe.resolved(), strategy=received.strategy)
    assert received == carried


@pytest.mark.parametrize(
    ("name", "key"),
    [(n, k) for n, k in sent_fields() if n != "strategy" and k not in later_fields(KINDS[n])],
)
def test_a_missing_field_is_named_and_never_filled_in(name: str, key: str) -> None:
    assert problems(changed(GOLDEN, name, key, take_away=True)) == f"{name}.{key}: missing"


@pytest.mark.parametrize("name", SENT)
def test_a_missing_section_is_named(name: str) -> None:
    assert problems(changed(GOLDEN, name, take_away=True)) == f"{name}: missing"


def test_a_field_that_this_version_does_not_know_is_refused() -> None:
    assert "training.turbo: unknown key" in problems(changed(GOLDEN, "training", "turbo", value=1))
    assert "extra: unknown section" in problems(changed(GOLDEN, "extra", value={}))
    assert "machine: unknown section" in problems(changed(GOLDEN, "machine", value={}))
    tokens = changed(GOLDEN, "training", "physical_batch_tokens", value=64)
    assert "training.physical_batch_tokens: unknown key" in problems(tokens)


@pytest.mark.parametrize("given", [0, 4, None, "2", True, 2.0, -(2**70)])
def test_another_format_is_refused(given: object) -> None:
    found = problems(changed(GOLDEN, "format", value=given))
    assert f"this version reads {FORMAT}" in found or "canonical" in found


def test_a_strategy_of_a_later_version_is_carried_unread() -> None:
    table = {"name": "fedmuon", "steepness": 3, "schedule": [1, {"until": None}]}
    text = changed(GOLDEN, "strategy", value=table)
    received = parse_document(text)
    assert isinstance(received.strategy, CarriedStrategy)
    assert received.strategy.name == "fedmuon"
    assert received.digest() == hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(UsageError, match="is not read at a site"):
        make_strategy(received.strategy, ())
    with pytest.raises(UsageError, match="is not read at a site"):
        validated(received)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "strategy.name: missing"),
        ({"name": 3}, "strategy.name: 3 given"),
        ({"name": "x" * 1000}, "strategy.name: 'xxxx"),
        ([], "strategy: [] (0 values) given"),
        ({"name": "x", "much": "y" * 300_000}, "strategy.options"),
    ],
)
def test_a_strategy_has_a_name_and_options_of_bounded_length(value: object, said: str) -> None:
    assert said in problems(changed(GOLDEN, "strategy", value=value))


@pytest.mark.parametrize(
    "text",
    [
        GOLDEN.replace(":", ": ", 1),
        GOLDEN + "\n",
        "\ufeff" + GOLDEN,
        GOLDEN.replace('"seed":0', '"seed":0,"seed":1'),
        GOLDEN.replace('"alpha":8.0', '"alpha":8'),
        GOLDEN.replace("1e-05", "0.00001"),
        GOLDEN.replace('"seed":0', '"seed":NaN'),
        GOLDEN.replace('"seed":0', '"seed":' + "9" * 5000),
        GOLDEN.replace('"seed":0', '"seed":' + "[" * 5000),
        GOLDEN.replace('"text":"text"', '"text":"\\ud800"'),
        GOLDEN.replace('"name":"fedavg"', '"name":"fedavg","x":"\\ud800"'),
        GOLDEN.replace('"name":"fedavg"', '"name":"fedavg","x":1e999'),
        "",
        "null",
        "[]",
        "3",
        "{",
        '{"format":2}',
        "[study]\nseed = 1\n",
    ],
)
def test_what_is_not_the_canonical_text_of_a_study_is_refused(text: str) -> None:
    assert problems(text)


def test_a_site_holds_a_study_to_the_rules_that_need_no_strategy() -> None:
    text = changed(GOLDEN, "training", "expected_batch_size", value=2000)
    assert "sample rate would be above 1" in problems(text)


def test_a_study_too_long_for_a_site_is_refused_where_it_is_sent() -> None:
    labels = [f"{number:0250d}" for number in range(5000)]
    recipe = parse_recipe("", [f"task.labels={labels[:1000]}"])
    task = dataclasses.replace(recipe.task, labels=tuple(labels))
    with pytest.raises(RecipeError, match="bytes; at most 1048576 are read"):
        sent_document(dataclasses.replace(recipe, task=task))


def test_the_study_is_the_same_on_machines_that_spend_differently() -> None:
    received = parse_document(GOLDEN)
    small = dataclasses.replace(received, machine=MachineConfig(frozen_cache_gib=0.0))
    assert small.digest() == received.digest() == GOLDEN_DIGEST
