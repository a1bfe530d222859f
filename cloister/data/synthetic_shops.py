"""Generates customers of four made-up shops, and the catalogue that the shops share.

The catalogue has twelve pursuits. Each is a list of six things in the order in which people need
them (tent, sleeping bag, stove, …), and each thing is sold in six styles (cheap, for experts, for
children, …): 432 items. An item's text names its thing and style. The things of a pursuit share no
word, and a style has several wordings, so common words predict little: a model must learn the
meaning of things and their order.

A customer has two or three pursuits and a style. Most often the next purchase is the next thing of
the current pursuit, in the customer's style. Otherwise it is the next thing of another pursuit, or
a present: any item, some of them far more often than others. Shops differ in their customers'
pursuits and styles. Every text is made from the words below.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloister.data.records import ItemsRecord
from cloister.seeds import child_seed

# Things of a pursuit, in the order in which they are bought.
PURSUITS: Mapping[str, tuple[str, ...]] = {
    "camping": (
        "dome tent for two",
        "goose down sleeping bag",
        "gas stove",
        "head torch",
        "water filter",
        "folding hammock",
    ),
    "baby": (
        "crib",
        "nappy changing mat",
        "feeding bottle warmer",
        "pushchair",
        "stair gate",
        "first picture book",
    ),
    "baking": (
        "stand mixer",
        "loaf tin",
        "proofing basket",
        "digital scale",
        "piping nozzles",
        "cake turntable",
    ),
    "running": (
        "cushioned trainers",
        "moisture-wicking shirt",
        "heart rate strap",
        "hydration vest",
        "foam roller",
        "medal display hanger",
    ),
    "painting": (
        "watercolour pan set",
        "sable brush",
        "cold-pressed paper block",
        "table easel",
        "masking fluid",
        "picture frame",
    ),
    "aquarium": (
        "glass tank of sixty litres",
        "canister filter",
        "immersion heater",
        "fine gravel",
        "live moss ball",
        "flake fodder",
    ),
    "office": (
        "standing desk",
        "mesh swivel chair",
        "wide curved monitor",
        "mechanical keyboard",
        "noise-cancelling headset",
        "cable tray",
    ),
    "garden": (
        "seed tray",
        "potting compost",
        "hand trowel",
        "watering can",
        "tomato stakes",
        "pruning shears",
    ),
    "guitar": (
        "acoustic six-string",
        "clip-on tuner",
        "capo",
        "chord songbook",
        "padded gig bag",
        "loop pedal",
    ),
    "cycling": (
        "gravel bike",
        "ventilated helmet",
        "floor pump",
        "puncture repair kit",
        "pannier",
        "chain degreaser",
    ),
    "coffee": (
        "burr grinder",
        "gooseneck kettle",
        "pour-over dripper",
        "paper cones",
        "milk frother",
        "espresso machine",
    ),
    "sewing": (
        "overlock machine",
        "fabric scissors",
        "dress pattern",
        "cotton thread reels",
        "seam ripper",
        "tailor's dummy",
    ),
}
# Styles, each in several wordings.
STYLES: Mapping[str, tuple[str, ...]] = {
    "cheap": ("budget", "low-cost", "value", "inexpensive"),
    "expert": ("professional", "pro-grade", "for experts", "competition"),
    "small": ("child-sized", "junior", "for kids", "for little ones"),
    "green": ("recycled", "organic", "eco-friendly", "climate-neutral"),
    "luxury": ("luxury", "premium", "hand-made", "exclusive"),
    "old": ("vintage", "retro", "in the style of the fifties", "nostalgic"),
}
# Endings that any item's text may have.
_ENDINGS = (
    "delivered tomorrow",
    "with two years of guarantee",
    "new in the shop",
    "last ones",
    "in blue",
    "in grey",
    "gift wrapping possible",
    "made in Portugal",
)
_FILLS = ("", "", "complete ", "light ", "sturdy ")


@dataclass(frozen=True)
class _Shop:
    pursuits: tuple[int, ...]  # weights, in the order of `PURSUITS`
    styles: tuple[int, ...]  # weights, in the order of `STYLES`
    customers: int


_SHOPS: Mapping[str, _Shop] = {
    "harbour": _Shop((4, 1, 2, 4, 2, 3, 1, 2, 2, 4, 1, 1), (3, 4, 1, 2, 1, 2), 1440),
    "market": _Shop((1, 4, 4, 1, 1, 1, 2, 3, 1, 1, 3, 3), (4, 1, 4, 2, 1, 1), 1440),
    "station": _Shop((1, 1, 2, 3, 1, 1, 5, 1, 2, 2, 5, 1), (2, 3, 1, 2, 4, 1), 1440),
    "village": _Shop((2, 2, 2, 1, 4, 3, 1, 4, 3, 2, 1, 4), (2, 1, 2, 4, 1, 4), 1440),
}
# Shares of purchases: the next thing of the current pursuit; of another one; the rest are presents.
_GOES_ON, _CHANGES = 0.75, 0.17
# Share of a customer's purchases, without presents, that have the customer's style.
_OWN_STYLE = 0.8
_FEWEST, _MOST = 4, 10
_TEST_EVERY = 6
# Presents follow Zipf's law with this exponent: the most frequent item is one in 14 of them.
_ZIPF = 0.9


def shop_items() -> list[tuple[str, str]]:
    """Returns the catalogue: ids and texts of 432 items, always the same."""
    items = []
    for pursuit, things in PURSUITS.items():
        for place, thing in enumerate(things):
            for style, words in STYLES.items():
                rng = random.Random(child_seed(0, "item", pursuit, place, style))
                style_words = rng.choice(words)
                fill = rng.choice(_FILLS)
                text = (
                    f"{fill}{thing} {style_words}"
                    if style_words.startswith(("for ", "in "))
                    else f"{style_words} {fill}{thing}"
                )
                items.append((item_id(pursuit, place, style), f"{text}, {rng.choice(_ENDINGS)}"))
    return items


def shop_customers(seed: int = 0) -> tuple[list[ItemsRecord], list[ItemsRecord]]:
    """Generates the customers of all shops: training and test set.

    Args:
        seed: Equal seeds give equal customers, in every process.

    Returns:
        Training customers (1,200 a shop) and test customers (240 a shop), one record each, in the
        order of shops. All items of a record are different.
    """
    presents = [item for item, _ in shop_items()]
    random.Random(child_seed(0, "presents")).shuffle(presents)
    weights = [1 / rank**_ZIPF for rank in range(1, len(presents) + 1)]
    train: list[ItemsRecord] = []
    test: list[ItemsRecord] = []
    for name, shop in _SHOPS.items():
        for number in range(shop.customers):
            rng = random.Random(child_seed(seed, "customer", name, number))
            half = test if number % _TEST_EVERY == _TEST_EVERY - 1 else train
            bought = _bought(shop, presents, weights, rng)
            half.append(ItemsRecord(bought, name, f"{name}-c{number:04d}"))
    return train, test


def _bought(
    shop: _Shop, presents: Sequence[str], weights: Sequence[float], rng: random.Random
) -> tuple[str, ...]:
    names, styles = list(PURSUITS), list(STYLES)
    own = rng.choices(styles, shop.styles)[0]
    pursuits = list(dict.fromkeys(rng.choices(names, shop.pursuits, k=rng.choice((2, 3)))))
    places = {pursuit: rng.choice((0, 0, 1, 2)) for pursuit in pursuits}
    bought: dict[str, None] = {}
    at, most = pursuits[0], rng.randint(_FEWEST, _MOST)
    while len(bought) < most:
        draw = rng.random()
        if draw < _GOES_ON + _CHANGES:
            if draw >= _GOES_ON or places[at] == len(PURSUITS[at]):
                at = rng.choice(pursuits)
            if places[at] < len(PURSUITS[at]):
                style = own if rng.random() < _OWN_STYLE else rng.choice(styles)
                bought[item_id(at, places[at], style)] = None
                places[at] += 1
                continue
        bought[rng.choices(presents, weights)[0]] = None
    return tuple(bought)


def item_id(pursuit: str, place: int, style: str) -> str:
    """Returns the id of a pursuit's thing in a style; `place` counts from 0."""
    return f"{pursuit}-{place + 1}-{style}"
