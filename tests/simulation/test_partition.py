"""Every record is dealt to exactly one site, as the seed decides."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cloister.data.config import DataConfig, Partition
from cloister.data.records import ChatRecord, Message, Record, TextRecord, TokenRecord
from cloister.errors import DataError, UsageError
from cloister.names import site_names
from cloister.seeds import child_generator, child_seed
from cloister.simulation.partition import partition

KINDS: list[Partition] = ["iid", "dirichlet", "quantity", "column", "person"]
LABELS = ("a", "b", "c")

few = settings(max_examples=20, deadline=None)


def config(kind: Partition, sites: int, **fields: Any) -> DataConfig:
    return DataConfig(partition=kind, sites=sites, person="person", **fields)


def made(count: int, sites: int = 3, persons: int = 20) -> list[TextRecord]:
    """Records that are all different, labels and sites in turn."""
    return [
        TextRecord(str(i), LABELS[i % 3], f"ward-{i % sites}", f"p{i % persons}")
        for i in range(count)
    ]


@pytest.mark.parametrize("kind", KINDS)
@few
@given(
    count=st.integers(10, 60),
    sites=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    alpha=st.floats(0.5, 100),
)
def test_every_record_is_in_exactly_one_site(
    kind: Partition, count: int, sites: int, seed: int, alpha: float
) -> None:
    records = made(count, sites)
    try:
        dealt = partition(records, config(kind, sites, alpha=alpha), seed)
    except DataError:  # a skewed deal may leave a site empty, and is refused
        assert kind in ("dirichlet", "quantity")
        assume(False)
    assert Counter(r for site in dealt.values() for r in site) == Counter(records)
    assert len(dealt) == sites
    assert list(dealt) == sorted(dealt)
    assert all(dealt.values())


@pytest.mark.parametrize("kind", KINDS)
@few
@given(copies=st.lists(st.integers(1, 4), min_size=15, max_size=40), seed=st.integers(0, 2**32))
def test_a_record_and_its_copies_are_at_one_site(
    kind: Partition, copies: list[int], seed: int
) -> None:
    firsts = made(len(copies))
    rows = [
        replace(first, text=f"{first.text}.{number}", unit=f"u{first.text}")
        for number in range(max(copies))  # a record's rows are apart from each other
        for first, count in zip(firsts, copies, strict=True)
        if number < count
    ]
    dealt = partition(rows, config(kind, 3, alpha=50.0), seed)
    assert Counter(row for site in dealt.values() for row in site) == Counter(rows)
    homes = Counter(unit for site in dealt.values() for unit in {row.unit for row in site})
    assert set(homes.values()) == {1}
    # Dealt like records without copies: sizes are of records, whatever rows they have.
    plain = partition(firsts, config(kind, 3, alpha=50.0), seed)
    assert {
        name: list(dict.fromkeys(row.unit for row in site)) for name, site in dealt.items()
    } == {name: [f"u{row.text}" for row in site] for name, site in plain.items()}


def test_copies_that_name_another_person_or_site_are_refused() -> None:
    for other in ({"person": "p9"}, {"site": "ward-9"}):
        rows = [replace(row, unit="u1") for row in made(1)] * 2
        rows[1] = replace(rows[1], **other)
        with pytest.raises(
            DataError,
            match="'u1': its rows are copies of one record but name several sites or persons",
        ):
            partition(rows, config("iid", 1), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_decides_the_deal(kind: Partition) -> None:
    records, by = made(120), config(kind, 3, alpha=5.0)
    assert partition(records, by, 7) == partition(records, by, 7)
    assert partition(records, by, 7) != partition(records, by, 8)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "quantity", "person"])
def test_another_seed_gives_sites_other_records(kind: Partition) -> None:
    # Not only in another order.
    records, by = made(120), config(kind, 3, alpha=5.0)
    one, two = (
        {name: set(site) for name, site in partition(records, by, seed).items()} for seed in (7, 8)
    )
    assert one != two


def test_an_even_deal_gives_sizes_that_differ_by_one_at_most() -> None:
    sizes = [len(site) for site in partition(made(50), config("iid", 4), 0).values()]
    assert sorted(sizes) == [12, 12, 13, 13]


# --- persons --------------------------------------------------------------------------------


@few
@given(persons=st.integers(4, 30), seed=st.integers(0, 2**32))
def test_nobody_is_in_two_sites(persons: int, seed: int) -> None:
    dealt = partition(made(90, persons=persons), config("person", 4), seed)
    homes = [{record.person for record in site} for site in dealt.values()]
    assert sum(map(len, homes)) == persons == len(set.union(*homes))
    # Dealt one after the other, sites differ by one person at most.
    assert max(map(len, homes)) - min(map(len, homes)) <= 1


def test_fewer_persons_than_sites_are_refused() -> None:
    with pytest.raises(DataError, match="site-2 would have no record"):
        partition(made(30, persons=2), config("person", 3), 0)


def test_dealing_persons_needs_their_column() -> None:
    with pytest.raises(UsageError, match=r"data\.person: name the column"):
        partition(made(30), DataConfig(partition="person", sites=3), 0)


# --- the column of sites --------------------------------------------------------------------


def test_a_column_names_the_sites() -> None:
    dealt = partition(made(30, sites=3), config("column", 3), 0)
    assert list(dealt) == ["ward-0", "ward-1", "ward-2"]
    assert all(record.site == name for name, site in dealt.items() for record in site)


@pytest.mark.parametrize("given_sites", [1, 2, 4])
def test_a_wrong_number_of_sites_is_refused_with_the_right_one(given_sites: int) -> None:
    message = rf"data\.sites: {given_sites} given, .* names 3 \(ward-0, .*\); set data\.sites = 3$"
    with pytest.raises(UsageError, match=message):
        partition(made(30, sites=3), config("column", given_sites), 0)


def test_a_record_without_a_site_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.site: a record has no 'site'"):
        partition([*made(3), TextRecord("x", "a")], config("column", 3), 0)


# --- skew -----------------------------------------------------------------------------------


def skew(dealt: dict[str, list[Record]]) -> float:
    """Mean total variation between a site's label shares and those of all, weighed by size."""
    total = sum(map(len, dealt.values()))
    everywhere = Counter(r.label for site in dealt.values() for r in site)  # type: ignore[union-attr]
    distance = 0.0
    for site in dealt.values():
        here = Counter(r.label for r in site)  # type: ignore[union-attr]
        distance += sum(
            abs(here[label] * total - everywhere[label] * len(site)) for label in LABELS
        ) / (2 * total * total)
    return distance


def mean_skew(alpha: float) -> float:
    found = []
    for seed in range(8):
        try:
            found.append(skew(partition(made(600), config("dirichlet", 4, alpha=alpha), seed)))
        except DataError:
            continue
    return sum(found) / len(found)


def test_labels_are_more_skewed_as_alpha_falls() -> None:
    # Dirichlet shares have a deviation of √(p(1−p)/(4α+1)): about 0.01 at 1000, 0.19 at 1 and
    # 0.37 at 0.1, so that the order holds by several standard errors of a mean over 8 seeds.
    mild, middling, strong = (mean_skew(alpha) for alpha in (1000.0, 1.0, 0.1))
    assert mild < 0.05 < middling < strong


@pytest.mark.parametrize(
    "record",
    [TokenRecord(("a",), ("O",)), ChatRecord((Message("assistant", "a"),))],
)
def test_records_without_labels_cannot_be_skewed_by_them(record: Record) -> None:
    with pytest.raises(UsageError, match='"dirichlet" skews labels'):
        partition([record] * 20, config("dirichlet", 2), 0)


def test_sizes_are_more_uneven_as_alpha_falls() -> None:
    spread = {}
    for alpha in (1000.0, 1.0):
        sizes = [
            [
                len(site)
                for site in partition(made(400), config("quantity", 4, alpha=alpha), s).values()
            ]
            for s in range(5)
        ]
        assert all(sum(row) == 400 for row in sizes)
        spread[alpha] = sum(max(row) - min(row) for row in sizes) / len(sizes)
    # At 1000 a share has a deviation of 0.7 %, 3 of 400 records.
    assert spread[1000.0] < 20 < spread[1.0]


def test_labels_stay_mixed_where_sizes_alone_are_skewed() -> None:
    # A site of n records strays by about √(2/(9n))·2/√… < 0.1 from the shares of all at n ≥ 30.
    assert skew(partition(made(600), config("quantity", 4, alpha=5.0), 0)) < 0.1


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "quantity", "person"])
def test_an_empty_site_is_named(kind: Partition) -> None:
    # Two records for twelve sites.
    with pytest.raises(DataError, match=r"^site-\d\d would have no record; use fewer data\.sites"):
        partition(made(2), config(kind, 12), 0)


def test_names_sort_as_their_numbers_do() -> None:
    assert site_names(1) == ["site-0"]
    assert site_names(11) == sorted(site_names(11))
    assert site_names(11)[10] == "site-10"


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "quantity"])
@pytest.mark.parametrize(("count", "sites"), [(61, 7), (40, 1), (300, 4)])
def test_records_are_dealt_as_by_flower_s_partitioners(
    kind: Partition, count: int, sites: int
) -> None:
    """Studies that were run with flwr-datasets' partitioners can be repeated."""
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, SizePartitioner

    records, seed, alpha = made(count), 5, 2.0
    dealt = partition(records, config(kind, sites, alpha=alpha), seed)
    order = child_generator(seed, "partition", "order").permutation(count)
    shuffled = [records[index] for index in order]
    theirs: Any
    if kind == "dirichlet":
        drawn = child_seed(seed, "partition", "dirichlet") % 2**31
        theirs = DirichletPartitioner(
            sites, "key", alpha, min_partition_size=0, self_balancing=False, seed=drawn
        )
    elif kind == "quantity":
        theirs = SizePartitioner([len(own) for own in dealt.values()])
    else:
        theirs = IidPartitioner(sites)
    keys = [record.label for record in shuffled]
    theirs.dataset = Dataset.from_dict({"index": range(count), "key": keys})
    expected = [
        [shuffled[index] for index in theirs.load_partition(site)["index"]] for site in range(sites)
    ]
    assert list(dealt.values()) == expected
