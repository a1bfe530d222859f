"""Forged ledgers, certificates and bundles are refuted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.canonical import canonical
from cloister.errors import CloisterError, LedgerError, RefusedError
from cloister.evidence.bundle import Bundle, Received
from cloister.evidence.verification import examine
from cloister.ledger.certificate import Evidence
from cloister.ledger.chain import Entry, Head
from cloister.ledger.charge import Released
from cloister.ledger.verify import verify
from tests.support.evidence import bundle_of, certified, key_of, keys_of, rechained, resigned
from tests.support.ledgers import charge, new_ledger, run_round
from tests.support.tables import hold

Forgery = Callable[[Path], None]
FORGERIES: dict[str, tuple[str, type[CloisterError], str, Forgery]] = {}
SITE = "site-0"


def forgery(layer: str, error: type[CloisterError], word: str) -> Callable[[Forgery], Forgery]:
    """Registers a forgery with what must refute it, and in which words."""

    def register(attempt: Forgery) -> Forgery:
        FORGERIES[attempt.__name__.replace("_", " ")] = (layer, error, word, attempt)
        return attempt

    return register


def changed(bundle: Bundle, evidence: Evidence) -> Bundle:
    return replace(bundle, sites={**bundle.sites, SITE: evidence})


@forgery("the ledger, when it is asked", RefusedError, "asked before with another")
def a_round_replayed_with_another_adapter(folder: Path) -> None:
    ledger = new_ledger(folder / "site.ledger")
    first = run_round(ledger, 1)
    again = ledger.reserve(charge(1))
    assert isinstance(again, Released)
    assert again == first  # the same request costs nothing and gives the same bytes
    ledger.reserve(replace(charge(1), request="another adapter"))


@forgery("`ledger verify`", LedgerError, "damaged, or not the one that follows")
def an_edited_ledger_entry(folder: Path) -> None:
    entries = list(bundle_of().sites[SITE].ledger)
    entries[1] = Entry(entries[1].body.replace(b"adapter 1", b"adapter 9"), entries[1].signature)
    verify(entries, "it")


@forgery("`ledger verify`", LedgerError, "states an epsilon")
def a_smaller_epsilon_by_the_keys_holder(folder: Path) -> None:
    def smaller(number: int, fields: dict[str, object]) -> None:
        if fields["kind"] == "reserve":
            fields["epsilon"] = {"pld": 0.1, "rdp": 0.2}

    verify(rechained(bundle_of().sites[SITE].ledger, key_of(0), smaller), "it")


@forgery("`ledger verify`", LedgerError, "a charge that differs from its plan")
def fewer_steps_by_the_keys_holder(folder: Path) -> None:
    def fewer(number: int, fields: dict[str, object]) -> None:
        if fields["kind"] == "reserve":
            fields["event"] = {**dict(fields["event"]), "steps": 1}  # type: ignore[call-overload]

    verify(rechained(bundle_of().sites[SITE].ledger, key_of(0), fewer), "it")


@forgery("`ledger verify --anchor`", LedgerError, "truncated, rolled back or replaced")
def a_ledger_cut_at_its_end(folder: Path) -> None:
    entries = bundle_of().sites[SITE].ledger
    verify(entries[:-2], "it", anchors=[Head(len(entries) - 1, entries[-1].hash)])


@forgery("`audit verify`", LedgerError, "left uncharged")
def a_ledger_that_misses_a_release(folder: Path) -> None:
    bundle = bundle_of(rounds=1)
    received = [*bundle.received, Received(2, SITE, f"{2:064x}", "head")]
    examine(replace(bundle, received=received), keys_of())


@forgery("`audit verify`, by what the coordinator was told", LedgerError, "was rewritten since")
def a_whole_ledger_rewritten_by_the_keys_holder(folder: Path) -> None:
    """Signed, chained, certified anew: the budget alone is another."""

    def roomier(number: int, fields: dict[str, object]) -> None:
        if number == 0:
            fields["epsilon"] = 80.0

    bundle = bundle_of()
    entries = rechained(bundle.sites[SITE].ledger, key_of(0), roomier)
    examine(changed(bundle, certified(entries, 0)), keys_of())


@forgery("`audit verify`", LedgerError, "two updates were received")
def two_updates_in_one_round(folder: Path) -> None:
    bundle = bundle_of()
    examine(replace(bundle, received=[*bundle.received, bundle.received[0]]), keys_of())


@forgery("`audit verify`", LedgerError, "not signed by the key")
def an_edited_certificate(folder: Path) -> None:
    bundle = bundle_of()
    evidence = bundle.sites[SITE]
    body = canonical({**evidence.fields, "promise": {**evidence.fields["promise"], "epsilon": 0.1}})
    edited = Entry(body, evidence.certificate.signature)
    examine(changed(bundle, Evidence(edited, evidence.ledger)), keys_of())


@forgery("`audit verify`", LedgerError, "promise differs from its ledger's")
def a_certificate_that_understates(folder: Path) -> None:
    bundle = bundle_of()
    promise = {**bundle.sites[SITE].fields["promise"], "epsilon": 0.1}
    told = resigned(bundle.sites[SITE], key_of(0), promise=promise)
    examine(changed(bundle, told), keys_of())


@forgery("`audit verify`", LedgerError, "promise differs from its ledger's")
def what_is_spent_so_far_sold_as_the_promise(folder: Path) -> None:
    bundle = bundle_of(rounds=1)
    fields = bundle.sites[SITE].fields
    sold = {
        **fields["promise"],
        "epsilon": fields["spent"]["epsilon"],
        "epsilon_rdp": fields["spent"]["epsilon_rdp"],
    }
    examine(changed(bundle, resigned(bundle.sites[SITE], key_of(0), promise=sold)), keys_of())


@forgery("`ledger verify`", LedgerError, "more steps than the budget covers")
def more_steps_fixed_at_the_first_charge(folder: Path) -> None:
    def more(number: int, fields: dict[str, object]) -> None:
        if "most_steps" in fields:
            fields["most_steps"] = 90_000

    verify(rechained(bundle_of().sites[SITE].ledger, key_of(0), more), "it")


@forgery("`audit verify`", LedgerError, "another adapter")
def a_swapped_adapter(folder: Path) -> None:
    bundle = bundle_of()
    files = {**bundle.adapter, "adapter_model.safetensors": b"other weights"}
    examine(replace(bundle, adapter=files), keys_of())


@forgery("`audit verify`", LedgerError, "no certificate")
def a_site_left_out(folder: Path) -> None:
    bundle = bundle_of()
    examine(replace(bundle, sites={SITE: bundle.sites[SITE]}), keys_of())


@forgery("`audit verify`", LedgerError, "another site or another key")
def a_certificate_under_another_name(folder: Path) -> None:
    bundle = bundle_of()
    swapped = {SITE: bundle.sites["site-1"], "site-1": bundle.sites[SITE]}
    examine(replace(bundle, sites=swapped), keys_of())


@pytest.mark.parametrize("name", FORGERIES)
def test_each_forgery_is_refuted_in_its_layer(name: str, tmp_path: Path) -> None:
    _, error, word, attempt = FORGERIES[name]
    with pytest.raises(error, match=word):
        attempt(tmp_path)


def test_the_page_for_officers_lists_every_forgery() -> None:
    rows = {name: layer for name, (layer, *_) in FORGERIES.items()}
    hold("forgeries", "| forgery | refuted by |", rows)
