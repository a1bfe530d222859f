"""The generated customers are equal everywhere, and need a model that learns orders."""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from cloister.data.catalogue import read_catalogue
from cloister.data.records import ItemsRecord
from cloister.data.synthetic_shops import PURSUITS, STYLES, shop_customers, shop_items
from cloister.data.synthetic_shops_chinese import THINGS, WORDINGS, chinese_shop_items
from cloister.tasks.popularity import popular_scores
from cloister.tasks.ranking import rank_scores, ranks_of, without_seen

# Of what this version makes: equal everywhere, and in the next version until it says so.
CUSTOMERS = "99ab4ff5bbec84c453422fd393601be9165f6c96ca3988a2f5e270016f3c2d12"
ITEMS = "3903ff1636656ebb75fd051c7fc634fcd0427344b3b2356c182409c65f2143c9"
CHINESE = "0f94339255b8f92ec0a947e940edb6669d9e10ac5e3fad427de38f212ef3d171"
# NDCG@10 of simulations/recommendation.toml at ε = 8 is 0.403 (simulations/README.md).
REACHED = 0.38

Customers = tuple[list[ItemsRecord], list[ItemsRecord]]


@pytest.fixture(scope="module")
def customers() -> Customers:
    return shop_customers()


def test_the_shops_are_the_same_on_every_machine(customers: Customers) -> None:
    told = [[(r.items, r.site, r.person) for r in half] for half in customers]
    assert hashlib.sha256(repr(told).encode()).hexdigest() == CUSTOMERS
    assert read_catalogue("synthetic:shops", None).sha256 == ITEMS
    assert shop_customers(1)[0] != customers[0]


def test_a_customer_is_one_record_of_different_items_of_the_catalogue(
    customers: Customers,
) -> None:
    train, test = customers
    assert Counter(r.site for r in train) == dict.fromkeys(
        ("harbour", "market", "station", "village"), 1200
    )
    assert len(test) == 960
    persons = [r.person for half in customers for r in half]
    assert len(set(persons)) == len(persons)
    ids = {item for item, _ in shop_items()}
    assert len(ids) == len({text for _, text in shop_items()}) == 72 * len(STYLES)
    for record in train:
        assert 4 <= len(record.items) == len(set(record.items)) <= 10
        assert ids.issuperset(record.items)


def scored(test: Sequence[ItemsRecord], scores: Callable[[list[int]], np.ndarray]) -> float:
    """NDCG of a ranking that sees what each person had before the last item."""
    place = {item: n for n, (item, _) in enumerate(shop_items())}
    ranks = []
    for record in test:
        *before, last = (place[item] for item in record.items)
        row = without_seen(torch.tensor(scores(before)[None].astype(float)), [before])
        ranks += ranks_of(row, torch.tensor([last]))
    return rank_scores(ranks)["ndcg@10"]


def test_popularity_and_words_stay_far_below_what_a_private_study_reaches(
    customers: Customers,
) -> None:
    train, test = customers
    bought = Counter(item for record in train for item in record.items)
    popular = np.array([bought[item] for item, _ in shop_items()])
    words = TfidfVectorizer().fit_transform([text for _, text in shop_items()])

    def alike(before: list[int]) -> np.ndarray:
        return np.asarray((words[before[-3:]] @ words.T).sum(axis=0)).ravel()

    assert 0.03 < scored(test, lambda _: popular) < 0.8 * REACHED
    assert popular_scores(test)["ndcg@10"] < 0.8 * REACHED
    assert scored(test, alike) < 0.8 * REACHED


def test_things_of_a_pursuit_share_no_word() -> None:
    for things in PURSUITS.values():
        words = [word for thing in things for word in set(thing.split()) - {"of", "for"}]
        assert len(words) == len(set(words))


def test_the_chinese_catalogue_has_the_same_items_in_chinese_words_alone() -> None:
    items = chinese_shop_items()
    assert [item for item, _ in items] == [item for item, _ in shop_items()]
    assert len({text for _, text in items}) == len(items)
    written = re.compile("[\u4e00-\u9fff]+，[\u4e00-\u9fff]+")
    assert all(written.fullmatch(text) for _, text in items)
    assert read_catalogue("synthetic:shops-zh", None).sha256 == CHINESE
    assert list(THINGS) == list(PURSUITS)
    assert list(WORDINGS) == list(STYLES)
    for things in THINGS.values():
        pairs = [pair for thing in things for pair in set(itertools.pairwise(thing))]
        assert len(pairs) == len(set(pairs))


def test_no_ranking_that_is_the_same_for_all_beats_popularity_on_the_scored_records(
    customers: Customers,
) -> None:
    small = customers[1][:40]
    best = popular_scores(small)["ndcg@10"]
    rng = np.random.default_rng(0)
    for _ in range(20):
        order = rng.permutation(len(shop_items())).astype(float)
        assert scored(small, lambda _, order=order: order) < best
    last = Counter(record.items[-1] for record in small)
    counts = np.array([last[item] for item, _ in shop_items()])
    assert scored(small, lambda _: counts) == pytest.approx(best)
