"""Generates pupils' answers of four made-up schools to one question, marked from 0 to 6.

The question is how a vaccine protects. Six ideas are each worth a mark. A pupil states an idea
rightly, states it the wrong way round (the same words with subject and object exchanged, or
denied), or leaves it out; so the order of the words matters more than which words occur. Schools
differ in how able their pupils are and in how they write, a pupil answers up to three times, and a
marker gives one mark too many or too few for 6 % of the answers. Every sentence is made from the
words below.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from cloister.data.records import ScoreRecord
from cloister.seeds import child_seed

HIGHEST = 6
# Subject, verb, object: several wordings of each; the verb in the active and the passive form. The
# order given here is the correct one.
_IDEAS: tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...], tuple[str, ...]], ...] = (
    (
        ("the vaccine", "a vaccine", "the injection", "the jab"),
        (("contains", "contained"), ("carries", "carried"), ("brings in", "brought in")),
        ("a harmless form of the germ", "weak germs", "dead germs", "pieces of the virus"),
    ),
    (
        ("the immune system", "the body", "our defence", "the white blood cells"),
        (("recognises", "recognised"), ("notices", "noticed"), ("detects", "detected")),
        ("the foreign antigens", "the strange proteins", "the markers of the germ"),
    ),
    (
        ("white blood cells", "the b cells", "lymphocytes", "certain blood cells"),
        (("produce", "produced"), ("make", "made"), ("release", "released")),
        ("antibodies", "specific antibodies", "fitting antibodies", "the right antibodies"),
    ),
    (
        ("antibodies", "the antibodies", "these antibodies"),
        (("block", "blocked"), ("catch", "caught"), ("mark", "marked")),
        ("the germs", "the pathogens", "the viruses", "the invaders"),
    ),
    (
        ("memory cells", "some memory cells", "the memory cells"),
        (("remember", "remembered"), ("keep", "kept"), ("store", "stored")),
        ("the shape of the germ", "the pathogen", "that virus", "the disease"),
    ),
    (
        ("a fast response", "the second response", "a quick reaction"),
        (("stops", "stopped"), ("prevents", "prevented"), ("beats", "beaten")),
        ("the illness", "the infection", "the symptoms"),
    ),
)
# Words before an object, and between subject and verb: pairs of neighbouring words then mean
# little.
_STRESSES = ("mostly", "above all", "really", "in the end", "only")
_ASIDES = ("as far as I know", "later on", "in most people", "after some days", "I think", "then")
_FILLERS = (
    "vaccines are very important",
    "my little brother had one last year",
    "this was discovered a long time ago",
    "it hurts only a bit",
    "doctors give it to children",
    "we learned this in biology",
)
_JOINS = (". ", ", and ", ". then ", ", so ", ". after that ")


@dataclass(frozen=True)
class _School:
    ability: tuple[float, float]  # of a beta distribution
    typos: float
    lower: bool
    pupils: int


_SCHOOLS: Mapping[str, _School] = {
    "hill": _School((4.0, 2.0), 0.01, False, 800),
    "lake": _School((2.0, 2.0), 0.03, True, 800),
    "mill": _School((2.0, 3.5), 0.05, True, 800),
    "park": _School((3.0, 2.5), 0.02, False, 800),
}
# Weights of 1, 2 and 3 answers of a pupil: about 1,200 training answers a school.
_ANSWERS = (45, 30, 25)
_FILLER, _DENIED, _MISMARKED = 0.5, 0.1, 0.06
# Sentences in the passive voice, with an aside, and with a stress.
_PASSIVE, _ASIDE, _STRESS = 0.5, 0.85, 0.85
# Probability that an idea that is not stated correctly is left out; otherwise it is reversed.
_LEFT_OUT = 0.45
_TEST_EVERY = 6


def marked_answers(seed: int = 0) -> tuple[list[ScoreRecord], list[ScoreRecord]]:
    """Generates the answers of all schools: training and test set.

    Args:
        seed: Equal seeds give equal answers, in every process.

    Returns:
        Training answers (about 1,200 a school) and test answers (about 240 a school), in the order
        of schools and pupils. No pupil is in both.
    """
    train: list[ScoreRecord] = []
    test: list[ScoreRecord] = []
    for name, school in _SCHOOLS.items():
        for number in range(school.pupils):
            rng = random.Random(child_seed(seed, "answer", name, number))
            half = test if number % _TEST_EVERY == _TEST_EVERY - 1 else train
            ability = rng.betavariate(*school.ability)
            for _ in range(rng.choices((1, 2, 3), _ANSWERS)[0]):
                text, score = _answer(school, ability, rng)
                half.append(ScoreRecord(text, float(score), name, f"{name}-p{number:04d}"))
    return train, test


def _answer(school: _School, ability: float, rng: random.Random) -> tuple[str, int]:
    sentences, marks = [], 0
    for who, does, what in _IDEAS:
        subject, verb, thing = rng.choice(who), rng.choice(does), rng.choice(what)
        if rng.random() < ability:
            marks += 1
            sentences.append(_sentence(subject, verb, thing, rng))
        elif rng.random() >= _LEFT_OUT:
            if rng.random() < _DENIED:
                sentences.append(f"it is not true that {_sentence(subject, verb, thing, rng)}")
            else:
                sentences.append(_sentence(thing, verb, subject, rng))
    if rng.random() < _FILLER or not sentences:
        sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(_FILLERS))
    text = sentences[0]
    for sentence in sentences[1:]:
        text += rng.choice(_JOINS) + sentence
    text = " ".join(
        _slipped(word, rng) if len(word) > 5 and rng.random() < school.typos else word
        for word in text.split(" ")
    )
    if rng.random() < _MISMARKED:
        marks = min(max(marks + rng.choice((-1, 1)), 0), HIGHEST)
    return (text if school.lower else text[0].upper() + text[1:] + "."), marks


def _sentence(subject: str, verb: tuple[str, str], thing: str, rng: random.Random) -> str:
    """Makes a sentence in the active or passive voice, so that the first noun may be either."""
    aside = f" {rng.choice(_ASIDES)}" if rng.random() < _ASIDE else ""
    stress = f"{rng.choice(_STRESSES)} " if rng.random() < _STRESS else ""
    if rng.random() < _PASSIVE:
        return f"{thing}{aside} is {verb[1]} by {stress}{subject}"
    return f"{subject}{aside} {verb[0]} {stress}{thing}"


def _slipped(word: str, rng: random.Random) -> str:
    """Returns a word without one of its inner letters."""
    at = rng.randrange(1, len(word) - 1)
    return word[:at] + word[at + 1 :]
