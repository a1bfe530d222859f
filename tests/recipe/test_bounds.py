"""Every size in a recipe is bounded before anything is parsed, built, fetched or loaded."""

import contextlib
import dataclasses
import json
import math
import time
import tomllib
import tracemalloc
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloister.bounds import MOST_ROUNDS, MOST_SITES, MOST_STEPS, Between, Bound, ByName, Items, Text
from cloister.client.policy_file import read_policy
from cloister.client.site_file import EXAMPLE, read_site
from cloister.deployment.coordinator.folder import ServerFolder
from cloister.errors import BadFileError, CloisterError, RecipeError, UsageError
from cloister.fields import field_types
from cloister.privacy.plan import make_plan
from cloister.recipe import Recipe, parse_document, parse_recipe, read_recipe, sent_document
from cloister.recipe.document import KEPT
from cloister.recipe.read import KINDS
from cloister.strategies.config import FIELDS
from cloister.toml_text import MOST_BYTES
from tests.support.examples import tries

# What a refusal may take: a second on an idle machine, a few copies of a text of 1 MiB.
# `lora.r = 2000000` took 6.5 GB, 20,000 dotted parts 20 s.
SECONDS, BYTES = 2.0, 8 * 2**20
# A message is read on a terminal: longer than this it repeats what was given.
LONGEST_LINE = 1000


def refused(read: Callable[[], object], *errors: type[Exception]) -> str:
    """The one error of a reader, which takes no time to speak of."""
    started = time.process_time()
    with pytest.raises(errors or (RecipeError,)) as caught:
        read()
    assert time.process_time() - started < SECONDS
    said = str(caught.value)
    assert max(len(line) for line in said.splitlines()) < LONGEST_LINE
    return said


FIELDS_OF_ALL = [(name, key) for name in KINDS for key in field_types(KINDS[name])]


def leaves(hint: Any, bound: tuple[Bound, ...] = ()) -> Iterator[tuple[Any, tuple[Bound, ...]]]:
    """The plain types in a field's type, each with the bounds that hold it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        yield from leaves(arguments[0], tuple(a for a in arguments[1:] if isinstance(a, Bound)))
    elif origin is tuple and any(isinstance(one, ByName) for one in bound):
        yield dict, bound
        for member in typing.get_args(arguments[0]):  # a name, and what it has
            yield from leaves(member)
    elif origin is tuple:
        yield tuple, bound
        yield from leaves(arguments[0])
    elif origin is typing.Literal or hint is type(None) or hint is bool:
        return
    elif arguments:
        for member in arguments:
            yield from leaves(member)
    elif hint in (int, float, str):
        yield hint, bound
    else:
        assert issubclass(hint, str), hint  # an enumeration


@pytest.mark.parametrize(("name", "key"), FIELDS_OF_ALL)
def test_every_number_text_and_list_has_a_bound(name: str, key: str) -> None:
    wanted = {int: Between, float: Between, str: Text, tuple: Items, dict: ByName}
    for kind, bounds in leaves(field_types(KINDS[name])[key]):
        assert [type(bound) for bound in bounds] == [wanted[kind]], (name, key, kind)
        if isinstance(bounds[0], Between):
            assert math.isfinite(bounds[0].least)
            assert math.isfinite(bounds[0].most)


def beyond(hint: Any) -> Iterator[object]:
    """Values just and far out of a field's bounds, and of no type that it has."""
    for kind, bounds in leaves(hint):
        bound = bounds[0]
        if isinstance(bound, Between):
            step = 1 if kind is int else abs(bound.most) * 1e-6
            yield from (kind(bound.most + step), kind(bound.least - max(step, 1)))
            yield from (10**30, -(10**30), 2**63)
            if kind is float:
                yield from (math.inf, -math.inf, math.nan, bound.most + step)
        elif isinstance(bound, Text):
            yield from ("x" * (bound.most + 1), "x" * 900_000, *([] if bound.lines else ["a\x1bb"]))
        elif isinstance(bound, Items):
            yield ["x"] * (bound.most + 1)
            yield [1] * (bound.most + 1)
            yield from ([10**30], [math.nan], [[1]], [{}], ["x" * 900_000], [None])
        elif isinstance(bound, ByName):
            yield from ({"a": 10**30}, {"a": math.nan}, {"a": "x"}, {"a": [1]})
    yield from ({"a": 1}, [[[1]]], "no such word")


def toml_value(value: object) -> str:
    if isinstance(value, float):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(toml_value(item) for item in value if item is not None)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml_value(item)}' for key, item in value.items())}}}"
    return json.dumps(value)


def fits(name: str, key: str, value: object) -> bool:
    """Whether a value that is meant to be out of bounds is one of another kind that is allowed."""
    kinds = [kind for kind, _ in leaves(field_types(KINDS[name])[key])]
    if value == {"a": 1} and dict in kinds:
        return True
    return (
        isinstance(value, str)
        and len(value) < 50
        and "\x1b" not in value
        and str in kinds
        and dict not in kinds
    )


@pytest.mark.parametrize(("name", "key"), FIELDS_OF_ALL)
def test_a_value_out_of_bounds_is_refused_by_name_at_once(name: str, key: str) -> None:
    method = next((m for m, own in FIELDS.items() if key in own), "fedavg")
    prefix = f'[strategy]\nname = "{method}"\n' if name == "strategy" else f"[{name}]\n"
    if (name, key) == ("strategy", "name"):
        prefix = "[strategy]\n"
    for value in beyond(field_types(KINDS[name])[key]):
        if fits(name, key, value):
            continue
        text = f"{prefix}{key} = {toml_value(value)}\n"
        if value == [None] or len(text) > MOST_BYTES:
            continue
        said = refused(lambda text=text: parse_recipe(text))  # type: ignore[misc]
        assert said.startswith(f"{name}.{key}: "), said
        assert "given" in said, said
        if name in KEPT or name == "strategy":
            continue
        if "NaN" in json.dumps(value) or "Infinity" in json.dumps(value):  # no JSON at all
            continue
        document = json.loads(sent_document(Recipe()))
        document[name][key] = value
        sent = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        said = refused(lambda sent=sent: parse_document(sent))  # type: ignore[misc]
        assert f"{name}.{key}: " in said, said


@pytest.mark.parametrize(("name", "key"), FIELDS_OF_ALL)
def test_what_is_made_in_python_is_held_to_the_same_bounds(name: str, key: str) -> None:
    for value in beyond(field_types(KINDS[name])[key]):
        if fits(name, key, value) or isinstance(value, list | dict):
            continue
        with pytest.raises(UsageError, match=f"^{key}: "):
            KINDS[name](**{key: value})


# Texts that took seconds, gigabytes or a traceback, and their kin.
HOSTILE = {
    "dotted keys": "a" + ".a" * 20_000 + " = 1",
    "quoted dotted keys": ".".join(['"a.b"'] * 20_000) + " = 1",
    "a dotted header": "[" + ".".join(["a"] * 20_000) + "]",
    "dots between numbers": "a = 1" + ".1" * 100_000,
    "nested lists": "a = " + "[" * 100_000,
    "nested tables": "a = " + "{a = " * 100_000,
    "many headers": "[[a]]\n" * 100_000,
    "many keys": "".join(f"k{number} = 1\n" for number in range(60_000)),
    "many values": "a = [" + "1," * 400_000 + "]",
    "many sections": "".join(f"[s{number}]\n" for number in range(60_000)),
    "a long number": "[study]\nseed = " + "9" * 500_000,
    "a long hexadecimal number": "[study]\nseed = 0x" + "f" * 500_000,
    "a number of 64 bits": "[study]\nseed = 0x" + "f" * 16,
    "a long key": "x" * 1_000_000 + " = 1",
    "a long unknown key": "[study]\n" + "x" * 1_000_000 + " = 1",
    "a long section": "[" + "x" * 1_000_000 + "]",
    "unclosed texts": '\\"""' * 200_000,
    "texts that end in a backslash": '"""\\' * 250_000,
    "long": "#" * (MOST_BYTES + 1),
    "very long": "a = 1\n" * 2_000_000,
    "rank": "[lora]\nr = 2000000",
    "rounds": "[federation]\nnum_rounds = 1000000",
    "steps": f"[federation]\nnum_rounds = {MOST_ROUNDS}\n[training]\nmode = 'local-steps'\n"
    f"local_steps = {MOST_STEPS // MOST_ROUNDS + 1}",
    "labels": "[task]\nlabels = [" + ",".join(f'"{n}"' for n in range(90_000)) + "]",
    "a name that is a path": "[study]\nname = '../../x'",
    "a null byte": '[model]\nbase = "a\\u0000b"',
    "a section that is a list": "study = [" + "1," * 90_000 + "]",
    "not TOML": "\x00\x01",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_text_is_one_error_at_once(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    assert refused(lambda: read_recipe(path), BadFileError, RecipeError)


def memory_of(read: Callable[[], object]) -> int:
    """Most bytes that a refusal holds at once."""
    tracemalloc.start()
    try:
        with pytest.raises(CloisterError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["nested lists", "a long number", "rank", "labels", "very long"])
def test_a_hostile_text_takes_a_few_megabytes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(HOSTILE[name], encoding="utf-8")
    assert memory_of(lambda: read_recipe(path)) < BYTES


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("reader", ["site", "policy", "server"])
def test_every_file_of_ours_is_read_the_same_way(reader: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"{reader}.toml"
    path.write_text(text, encoding="utf-8")
    read: dict[str, Callable[[], object]] = {
        "site": lambda: read_site(path),
        "policy": lambda: read_policy(path),
        "server": lambda: ServerFolder.open(tmp_path),
    }
    assert refused(read[reader], BadFileError, RecipeError)


def test_a_byte_order_mark_is_read_over_in_every_file(tmp_path: Path) -> None:
    bom = b"\xef\xbb\xbf"
    recipe, site, server = (tmp_path / f"{name}.toml" for name in ("recipe", "site", "server"))
    recipe.write_bytes(bom + b"[study]\nseed = 3\n")
    site.write_bytes(bom + EXAMPLE.encode())
    server.write_bytes(bom + b'name = "hub"\naddress = "localhost:9443"\n')
    assert read_recipe(recipe).study.seed == 3
    assert read_site(site).site.name == "st-marys"
    assert ServerFolder.open(tmp_path).config.name == "hub"
    policy = tmp_path / "policy.toml"
    policy.write_bytes(bom + EXAMPLE[EXAMPLE.index("[budget]") :].partition("\n# [m")[0].encode())
    assert read_policy(policy).budget.epsilon == 8.0


HOSTILE_DOCUMENTS = {
    "deep": "[" * 500_000,
    "deep tables": '{"a":' * 200_000,
    "many": "[" + "1," * 500_000 + "1]",
    "many tables": "[" + "{}," * 300_000 + "{}]",
    "long": '"' + "x" * MOST_BYTES,
    "very long": "x" * 20_000_000,
    "unclosed": '"\\' * 500_000,
    "a long number": '{"format":' + "9" * 1_000_000 + "}",
}


@pytest.mark.parametrize("text", HOSTILE_DOCUMENTS.values(), ids=HOSTILE_DOCUMENTS.keys())
def test_a_hostile_document_is_one_error_at_once(text: str) -> None:
    assert refused(lambda: parse_document(text))


@pytest.mark.parametrize("name", HOSTILE_DOCUMENTS)
def test_a_hostile_document_takes_a_few_megabytes(name: str) -> None:
    assert memory_of(lambda: parse_document(HOSTILE_DOCUMENTS[name])) < BYTES


def test_the_largest_study_is_read_and_sent() -> None:
    sites = [1] * MOST_SITES
    text = (
        f"[data]\nsites = {MOST_SITES}\npublic_records = {[10**9] * MOST_SITES}\n"
        f"[strategy]\nweights = {[0.1234567] * MOST_SITES}\n"
        f"[privacy]\nsite_budgets = {[0.1234567] * MOST_SITES}\n"
        f"[lora]\nranks = {sites}\n[training]\nexpected_batch_size = 1\n"
        f"[task]\nlabels = {json.dumps([str(n) for n in range(5000)])}\n"
    )
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    assert caught.value.problems == (
        "lora.ranks: fedavg averages factors, which must have the same rank; leave it out, or set "
        "strategy.name = 'flexlora' or 'flora'",
    )
    recipe = parse_recipe(text.replace(f"ranks = {sites}\n", ""))
    assert parse_document(sent_document(recipe)).digest() == recipe.digest()


def test_the_longest_study_is_planned_at_once() -> None:
    recipe = parse_recipe(
        "",
        [
            f"federation.num_rounds={MOST_ROUNDS}",
            "training.mode=local-steps",
            f"training.local_steps={MOST_STEPS // MOST_ROUNDS}",
        ],
    )
    started = time.process_time()
    plan = make_plan(
        recipe.privacy,
        public_records=1200,
        expected_batch_size=300,
        local_steps=recipe.training.local_steps,
        num_rounds=MOST_ROUNDS,
        sites=4,
    )
    assert 7.9 < plan.epsilon_after(MOST_ROUNDS) <= 8.0
    # 0.6 s measured; 52 s took the study that the bound refuses.
    assert time.process_time() - started < 10


def test_more_problems_than_anybody_reads_are_counted() -> None:
    text = "[study]\n" + "".join(f"k{number} = 1\n" for number in range(900))
    said = refused(lambda: parse_recipe(text))
    assert "… and 880 more problems" in said
    assert len(said.splitlines()) == 21


SNIPPETS = st.sampled_from(
    [
        "[study]\n",
        "seed",
        "=",
        " ",
        "1",
        "\n",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        '"',
        "'",
        '"""',
        "'''",
        "\\",
        "#",
        "a",
        "[[",
        "]]",
        "0x",
        "1e9",
        "nan",
        "-inf",
        "true",
        "1979-05-27",
        "\ufeff",
        "\r",
        "format = 2\n",
        "absent = ['data.person']\n",
        "lora.r = ",
        "privacy.epsilon=",
        "\ud800",
        "\x00",
    ]
)


@settings(max_examples=tries(300), deadline=2000)
@given(st.lists(SNIPPETS, max_size=60).map("".join) | st.text(max_size=200))
@example('"""' + '"' * 5)
@example("format = 1")
@example("absent = 3")
@example("absent = ['strategy.name']")
@example("absent = ['no.such', 'nothing']\ndata.person = 'p'")
def test_any_text_is_a_recipe_or_one_clean_error(text: str) -> None:
    with contextlib.suppress(RecipeError, tomllib.TOMLDecodeError):
        parse_recipe(text)
    with pytest.raises(RecipeError):
        parse_document(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=tries(300), deadline=2000)
@given(st.sampled_from(FIELDS_OF_ALL), VALUES)
def test_any_value_in_a_document_is_a_study_or_one_clean_error(
    field: tuple[str, str], value: object
) -> None:
    name, key = field
    document = json.loads(sent_document(Recipe()))
    document.setdefault(name, {})[key] = value
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        received = parse_document(text)
    except RecipeError:
        return
    assert received.document() == text


def test_a_bound_is_what_it_says() -> None:
    assert str(Between(0, 10, below=True)) == "from 0 to below 10"
    assert not Between(0, 10, below=True)(10)
    assert not Between(0.0, 1.0)(math.nan)
    assert dataclasses.replace(Between(0, 10))(10)
    assert not Text(5)("\ud800")
    assert Text(5, lines=True)("a\n")


@pytest.mark.parametrize("name", ["x" * 3000, "/" * 3000])
def test_a_site_s_long_name_is_told_short(tmp_path: Path, name: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(EXAMPLE.replace("st-marys", name), encoding="utf-8")
    assert "site.name: " in refused(lambda: read_site(path))
