"""Two independent verifiers agree on sound and on corrupted bundles."""

import importlib.util
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cloister.canonical import canonical
from cloister.errors import CloisterError
from cloister.evidence.bundle import Bundle, read_bundle, write_bundle
from cloister.evidence.verification import examine
from cloister.ledger.certificate import Evidence
from cloister.ledger.chain import Entry, Head
from cloister.ledger.stated import shown
from cloister.privacy.accounting import epsilon
from tests.support.cached_reference import made_once
from tests.support.evidence import (
    ADAPTER,
    bundle_of,
    certified_as,
    chain,
    key_of,
    keys_of,
    received_of,
    rechained,
    resigned,
)
from tests.support.examples import tries
from tests.support.ledgers import banded_plan, shared_plan, small_plan

TOOL = Path(__file__).parents[2] / "tools" / "verify_certificate.py"
SITES = 2


@pytest.fixture(scope="module", autouse=True)
def quick_reference() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        made_once(patch)
        yield


@cache
def independent() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location("verify_certificate", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[list[str]], int] = module.main
    return main


@cache
def sound(which: int) -> Bundle:
    """Bundles of different kinds: usual, cut off, of several studies, seeded, of shared noise; of
    older ledgers and certificates; of two lengths of one plan on a budget that covers them so; of
    data whose units were coupled; of correlated noise."""
    plan, other = small_plan(), small_plan(2.0)
    if which == 0:
        return bundle_of(SITES)
    if which == 1:
        rounds = [("study", 1, plan, True), ("study", 2, plan, False)]
    elif which == 2:
        rounds = [("earlier", 1, other, True), ("study", 1, plan, True)]
    elif which == 4:
        faint = shared_plan(0.3)
        rounds = [
            ("earlier", 1, faint, True),
            ("study", 1, shared_plan(), True),
            ("study", 2, plan, False),
        ]
    elif which in (5, 6, 7):
        rounds = (
            [("earlier", 1, other, True), ("study", 1, plan, True)]
            if which != 7
            else [("study", 1, shared_plan(), True)]
        )
    elif which == 10:
        banded = banded_plan()
        rounds = [("study", r, banded, r != 2) for r in range(1, 6)]
    elif which == 8:
        longer = small_plan(num_rounds=6)
        rounds = [("earlier", r, plan, True) for r in range(1, 4)]
        rounds += [("study", r, longer, True) for r in range(1, 5)]
    else:
        rounds = [("study", 1, plan, True)]
    options: dict[str, Any] = {
        3: {"cap": None, "seeded": True},
        5: {"is_old": True},
        6: {"is_old": True},
        8: {"cap": TIGHT, "order": 8.0},
    }.get(which, {})
    version = {5: 1, 6: 2, 7: 2, 9: 4}.get(which, 3)
    evidence = {}
    for n in range(SITES):
        entries = chain(key_of(n), rounds, **options)
        if which == 9:
            entries = rechained(entries, key_of(n), mark)
        evidence[f"site-{n}"] = certified_as(version, entries, n)
    received = [received_of(one, 1) for one in evidence.values()]
    return Bundle(evidence, ADAPTER, received)


def mark(_: int, fields: dict[str, Any]) -> None:
    """Has a charge say that units were coupled."""
    if fields["kind"] == "reserve":
        fields["couples_units"] = True


KINDS = 11
# Of 35 steps of `small_plan` by PLD, which no Rényi filter affords.
TIGHT = epsilon([small_plan().event(35)], 1e-5) + 1e-3


def verdicts(path: Path, keys: Any) -> tuple[bool, bool]:
    """Whether each of the two finds nothing to refute."""
    file = path.with_name("keys.json")
    file.write_text(json.dumps(keys))
    try:
        examine(read_bundle(path), keys)
        ours = True
    except CloisterError:
        ours = False
    return ours, independent()([str(path), str(file)]) == 0


def replaced(bundle: Bundle, site: str, evidence: Evidence) -> Bundle:
    return Bundle({**bundle.sites, site: evidence}, bundle.adapter, bundle.received)


@pytest.mark.parametrize(("which", "version"), [(9, 3), (0, 4)])
def test_both_refute_that_coupled_units_are_hidden_or_invented(
    which: int, version: int, tmp_path: Path
) -> None:
    bundle, path = sound(which), tmp_path / "bundle.zip"
    one = bundle.sites["site-0"]
    claims = {k: v for k, v in one.fields.items() if k != "couples_units"} | {"version": version}
    if version == 4:
        claims["couples_units"] = True
    body = canonical(claims)
    false = Evidence(Entry(body, key_of(0).sign(body)), one.ledger)
    write_bundle(path, bundle)
    assert verdicts(path, keys_of(SITES)) == (True, True)
    other = tmp_path / "false.zip"
    write_bundle(other, replaced(bundle, "site-0", false))
    assert verdicts(other, keys_of(SITES)) == (False, False)


@pytest.mark.parametrize("more", [("released",), ("rounds", "released")])
def test_both_refute_more_releases_than_charged_rounds(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    bundle, path = sound(0), tmp_path / "bundle.zip"
    one = bundle.sites["site-0"]
    told = resigned(one, key_of(0), **dict.fromkeys(more, one.fields["rounds"] + 1))
    write_bundle(path, replaced(bundle, "site-0", told))
    assert verdicts(path, keys_of(SITES)) == (False, False)


VALUES = st.sampled_from(
    [None, True, 0, 1, -1, 3, 0.5, 1e-6, 7.25, "", "x", "study", "f" * 64, [], {}, [1]]
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for k, v in value.items() for leaf in leaves(v, (*path, k))]
    if isinstance(value, list) and value:
        return [leaf for i, v in enumerate(value) for leaf in leaves(v, (*path, i))]
    return [path]


def changed(draw: st.DrawFn, fields: dict[str, Any]) -> dict[str, Any]:
    """One leaf replaced, or one field taken away or added."""
    fields = json.loads(canonical(fields))
    how = draw(st.sampled_from(["leaf", "leaf", "leaf", "less", "more"]))
    if how == "more":
        return {**fields, "more": draw(VALUES)}
    path = draw(st.sampled_from(leaves(fields)))
    if how == "less":
        fields.pop(path[0])
        return fields
    *above, last = path
    place: Any = fields
    for step in above:
        place = place[step]
    value = draw(VALUES)
    assume(json.dumps(place[last]) != json.dumps(value))
    place[last] = value
    return fields


@st.composite
def corrupted(draw: st.DrawFn) -> tuple[Bundle, dict[str, str], bool]:
    """A bundle, keys, and whether it must be refuted."""
    bundle, keys = sound(draw(st.integers(0, KINDS - 1))), keys_of(SITES)
    site, key = "site-0", key_of(0)
    evidence = bundle.sites[site]
    how = draw(
        st.sampled_from(
            [
                "nothing",
                "certificate",
                "liar",
                "forger",
                "ledger",
                "insider",
                "insider",
                "cut",
                "received",
                "adapter",
                "swap",
                "less",
                "keys",
            ]
        )
    )
    if how == "nothing":
        return bundle, keys, False
    if how in ("certificate", "liar", "forger"):
        body = canonical(changed(draw, evidence.fields))
        signer = key_of(9) if how == "forger" else key
        signature = evidence.certificate.signature if how == "certificate" else signer.sign(body)
        told = Evidence(Entry(body, signature), evidence.ledger)
        harmless = {"code", "time"}
        odd = {
            k
            for k in {**evidence.fields, **told.fields}
            if evidence.fields.get(k) != told.fields.get(k)
        }
        harmful = how != "liar" or not odd <= harmless
        return replaced(bundle, site, told), keys, harmful
    if how == "ledger":
        number = draw(st.integers(0, len(evidence.ledger) - 1))
        entries = list(evidence.ledger)
        body = canonical(changed(draw, entries[number].fields))
        entries[number] = Entry(body, entries[number].signature)
        return replaced(bundle, site, Evidence(evidence.certificate, tuple(entries))), keys, True
    if how == "insider":
        number = draw(st.integers(0, len(evidence.ledger) - 1))

        def change(at: int, fields: dict[str, Any]) -> None:
            if at == number:
                told = changed(draw, fields)
                fields.clear()
                fields.update(told)

        entries = rechained(evidence.ledger, key, change)
        head = Head(len(entries) - 1, entries[-1].hash)
        told = resigned(evidence, key, ledger={"seq": head.seq, "hash": head.hash})
        return replaced(bundle, site, Evidence(told.certificate, tuple(entries))), keys, False
    if how == "cut":
        kept = draw(st.integers(0, len(evidence.ledger) - 1))
        entries = list(evidence.ledger[:kept])
        return replaced(bundle, site, Evidence(evidence.certificate, tuple(entries))), keys, True
    if how == "received":
        rows = list(bundle.received)
        row = draw(st.sampled_from(rows))
        told = draw(
            st.sampled_from(
                [
                    replace(row, sha256="a" * 64),
                    replace(row, round=row.round + 7),
                    replace(row, site="site-9"),
                    row,
                    replace(row, head="a" * 64),
                ]
            )
        )
        kept = [other for other in rows if draw(st.booleans()) or other != row]
        harmful = told != row or row in kept
        return Bundle(bundle.sites, bundle.adapter, [*kept, told]), keys, harmful
    if how == "adapter":
        name = draw(st.sampled_from(["adapter_model.safetensors", "cloister.json", "more.bin"]))
        files = {**bundle.adapter, name: b'{"model": {"sha256": "cc"}}'}
        return Bundle(bundle.sites, files, bundle.received), keys, True
    if how == "swap":
        one, other = bundle.sites.values()
        sites = {"site-0": other, "site-1": one}
        return Bundle(sites, bundle.adapter, bundle.received), keys, True
    if how == "less":
        return Bundle({site: evidence}, bundle.adapter, bundle.received), keys, True
    wrong = draw(
        st.sampled_from(
            [{}, {site: keys[site]}, {**keys, site: keys["site-1"]}, {**keys, "site-9": "ab" * 32}]
        )
    )
    return bundle, wrong, True


many = settings(
    max_examples=tries(200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@many
@given(case=corrupted())
def test_both_come_to_one_verdict(
    tmp_path: Path, case: tuple[Bundle, dict[str, str], bool]
) -> None:
    bundle, keys, harmful = case
    path = tmp_path / "bundle.zip"
    write_bundle(path, bundle)
    ours, theirs = verdicts(path, keys)
    assert ours == theirs
    assert not (harmful and ours)


@many
@given(data=st.data())
def test_both_come_to_one_verdict_on_damaged_files(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "bundle.zip"
    write_bundle(path, sound(0))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    path.write_bytes(bytes(content))
    ours, theirs = verdicts(path, keys_of(SITES))
    assert ours == theirs


@pytest.mark.parametrize("which", range(KINDS))
def test_both_find_nothing_in_sound_bundles(tmp_path: Path, which: int) -> None:
    path = tmp_path / "bundle.zip"
    write_bundle(path, sound(which))
    assert verdicts(path, keys_of(SITES)) == (True, True)


@pytest.mark.parametrize(
    "name",
    ["../evil", "adapter/../evil", "adapter/sub/x", "readme.txt", "adapter/.hidden", "sites/a.txt"],
)
def test_both_refuse_what_no_bundle_holds(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bundle.zip"
    write_bundle(path, sound(0))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    assert verdicts(path, keys_of(SITES)) == (False, False)


def test_both_refuse_a_name_that_is_there_twice_and_what_is_compressed(tmp_path: Path) -> None:
    path = tmp_path / "bundle.zip"
    write_bundle(path, sound(0))
    whole = path.read_bytes()
    with (
        zipfile.ZipFile(path, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("received.json", "[]")
    assert verdicts(path, keys_of(SITES)) == (False, False)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert verdicts(path, keys_of(SITES)) == (False, False)


def test_a_bundle_beyond_the_budget_is_refuted_by_both(tmp_path: Path) -> None:
    def lower(number: int, fields: dict[str, Any]) -> None:
        if number == 0:
            fields["epsilon"] = 0.5

    bundle = sound(0)
    evidence = bundle.sites["site-0"]
    entries = rechained(evidence.ledger, key_of(0), lower)
    told = resigned(evidence, key_of(0), ledger={"seq": len(entries) - 1, "hash": entries[-1].hash})
    path = tmp_path / "bundle.zip"
    write_bundle(path, replaced(bundle, "site-0", Evidence(told.certificate, tuple(entries))))
    assert verdicts(path, keys_of(SITES)) == (False, False)


def test_the_tool_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert independent()([]) == 2
    assert "KEYS.json" in capsys.readouterr().err


def test_the_tool_imports_nothing_of_cloister() -> None:
    assert "import cloister" not in TOOL.read_text()
    assert "from cloister" not in TOOL.read_text()


def test_both_name_a_whole_plan_s_promise_in_old_certificates_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, keys = tmp_path / "bundle.zip", tmp_path / "keys.json"
    evidence = {
        f"site-{n}": certified_as(2, chain(key_of(n), [("study", 1, small_plan(), True)]), n)
        for n in range(SITES)
    }
    write_bundle(path, Bundle(evidence, ADAPTER, []))
    keys.write_text(json.dumps(keys_of(SITES)))
    assert independent()([str(path), str(keys)]) == 0
    printed = capsys.readouterr().out
    whole, ran = small_plan().epsilon_after(4), small_plan().epsilon_after(1)
    assert f"ε = {shown(whole)} at δ = 1e-05" in printed
    assert shown(ran) not in printed
    assert "of the rounds that ran, and no promise" in printed
    assert examine(read_bundle(path), keys_of(SITES)).sites[0].verdict.promise.epsilon == whole


@pytest.mark.parametrize("sold", ["spent as the promise", "said to be a promise"])
@pytest.mark.parametrize("which", [0, 2, 8])
def test_an_indication_sold_as_a_promise_is_refuted_by_both(
    tmp_path: Path, which: int, sold: str
) -> None:
    bundle = sound(which)
    evidence = bundle.sites["site-0"]
    fields = evidence.fields
    lie = {"spent": {**fields["spent"], "is_promise": True}}
    if sold == "spent as the promise":
        smaller = {name: fields["spent"][name] for name in ("epsilon", "delta")}
        lie = {"promise": {**fields["promise"], **smaller}}
    path = tmp_path / "bundle.zip"
    write_bundle(path, replaced(bundle, "site-0", resigned(evidence, key_of(0), **lie)))
    assert verdicts(path, keys_of(SITES)) == (False, False)


@pytest.mark.parametrize("more", [1, 10**9])
def test_more_steps_than_the_budget_covers_are_refuted_by_both(tmp_path: Path, more: int) -> None:
    def roomier(number: int, fields: dict[str, Any]) -> None:
        if "most_steps" in fields:
            fields["most_steps"] += more

    bundle = sound(8)
    entries = rechained(bundle.sites["site-0"].ledger, key_of(0), roomier)
    head = {"seq": len(entries) - 1, "hash": entries[-1].hash}
    told = resigned(bundle.sites["site-0"], key_of(0), ledger=head)
    path = tmp_path / "bundle.zip"
    write_bundle(path, replaced(bundle, "site-0", Evidence(told.certificate, tuple(entries))))
    assert verdicts(path, keys_of(SITES)) == (False, False)
