"""A private linear head on frozen features, emulated: the noise of every site is drawn, no model
runs. `compare.py` runs it.

n sites have the training records. A round is one Poisson batch of every site at one sample rate q,
each record's gradient clipped to C, noise of σC at every site (own) or of σC√(n / (n − 1)) in the
sum (shared, one colluding site), and one step of the server. σ is of all rounds at ε, δ = 10⁻⁵.
It is what `lora.train = "none"` runs, except that features are kept and noise is seeded.

Each record is drawn by itself, at the same rate at every site, and the server adds up what the
sites send. So of the sites only their number matters, not which records each has: it is how often
noise is added. With all records in one place (central) noise of σC is added once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from denoise import shrink_singular_values
from features import Features
from numpy.typing import NDArray

from cloister.privacy.accounting import calibrate

SITES, ROUNDS, RATE, DELTA = 5, 30, 0.25, 1e-5
Matrix = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a head is trained; see the recipe's fields of these names."""

    epsilon: float
    clip: float
    rate: float
    noise: str = "own"
    momentum: float = 0.5
    schedule: str = "linear"
    strategy: str = "fedavgm"
    rounds: int = ROUNDS
    sites: int = SITES
    sample_rate: float = RATE


@cache
def noise_multiplier(epsilon: float, rounds: int, sample_rate: float) -> float:
    """σ that meets ε; 0 for an ε without end."""
    return 0.0 if math.isinf(epsilon) else calibrate(sample_rate, rounds, epsilon, DELTA)


def noise_of_sum(setting: Setting) -> float:
    """Deviation of the noise in the sum of all sites' clipped gradients."""
    sites = setting.sites
    terms = {"own": sites, "shared": sites / (sites - 1), "central": 1}[setting.noise]
    sigma = noise_multiplier(setting.epsilon, setting.rounds, setting.sample_rate)
    return sigma * setting.clip * math.sqrt(terms)


def logit_noise(found: Features, setting: Setting) -> float:
    """About the deviation of the noise in a class's logit after the last round, of a falling rate.

    A coordinate of the head has η s √(T/3) / (1 − β): T rounds of noise s at rates that fall from η
    to 0, each counted 1 / (1 − β) times by momentum. A logit has √H times that, for vectors of
    norm √H.
    """
    deviation = noise_of_sum(setting) / (setting.sample_rate * len(found.train))
    lasting = math.sqrt(setting.rounds / 3) / (1 - setting.momentum)
    return setting.rate * deviation * lasting * math.sqrt(found.train.shape[1])


def rate_at(setting: Setting, step: int) -> float:
    """The learning rate of a round, from 0."""
    if setting.schedule == "constant":
        return setting.rate
    return setting.rate * (setting.rounds - step) / setting.rounds


def iterates(
    found: Features, setting: Setting, seed: int, start: Matrix | None = None
) -> list[tuple[Matrix, float]]:
    """The head [C, H + 1] after each round, and the noise variance of each round's mean update.

    Args:
        found: The data set.
        setting: How it is trained.
        seed: Of batches and noise; every setting draws the same of a seed.
        start: The head before round 1; None: zeros, as heads begin.
    """
    rng = np.random.default_rng(seed)
    rows = with_bias(found.train)
    lengths = np.linalg.norm(rows, axis=1)
    weight = np.zeros((found.classes, rows.shape[1]), np.float32) if start is None else start
    batch = setting.sample_rate * len(rows)
    deviation = noise_of_sum(setting) / batch
    momentum, second, spread = np.zeros_like(weight), np.zeros_like(weight), 0.0
    kept = []
    for step in range(setting.rounds):
        drawn = np.flatnonzero(rng.random(len(rows)) < setting.sample_rate)
        scores = rows[drawn] @ weight.T
        scores -= scores.max(axis=1, keepdims=True)
        error = np.exp(scores)
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(drawn)), found.train_labels[drawn]] -= 1
        norms = np.linalg.norm(error, axis=1) * lengths[drawn]
        error *= np.minimum(1, setting.clip / np.maximum(norms, 1e-12))[:, None]
        mean = error.T @ rows[drawn] / batch
        mean += deviation * rng.standard_normal(weight.shape, dtype=np.float32)
        rate = rate_at(setting, step)
        update, variance = -rate * mean, (rate * deviation) ** 2
        if setting.strategy == "fedavgm":
            momentum = setting.momentum * momentum + update
            weight = weight + momentum
        else:  # Adam at the server; its rate is the schedule's, its updates are of rate 1
            momentum = 0.9 * momentum - 0.1 * mean
            second = 0.99 * second + 0.01 * mean**2
            spread = 0.99 * spread + 0.01 * deviation**2
            known = spread if setting.strategy == "fedadam-bc" else 0.0
            left = np.maximum(second - known, 0.1 * known)
            weight = weight + rate * momentum / (np.sqrt(left) + 1e-12)
        kept.append((weight, variance))
    return kept


def with_bias(vectors: Matrix) -> Matrix:
    """Vectors [n, H + 1] whose last coordinate is 1."""
    return np.hstack([vectors, np.ones((len(vectors), 1), np.float32)])


def public_head(found: Features, steps: int, rate: float, seed: int) -> Matrix:
    """A head trained by plain steps on the training records, as `training.public_steps` does."""
    rng = np.random.default_rng(seed)
    rows = with_bias(found.train)
    weight = np.zeros((found.classes, rows.shape[1]), np.float32)
    batch = min(32, len(rows))
    for step in range(steps):
        drawn = np.flatnonzero(rng.random(len(rows)) < batch / len(rows))
        scores = rows[drawn] @ weight.T
        error = np.exp(scores - scores.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(drawn)), found.train_labels[drawn]] -= 1
        weight = weight - rate * (steps - step) / steps * (error.T @ rows[drawn]) / batch
    return np.asarray(weight, np.float32)


def accuracy(found: Features, weight: Matrix) -> float:
    """On the test set."""
    return float((predicted(found, weight) == found.test_labels).mean())


def predicted(found: Features, weight: Matrix) -> NDArray[np.int64]:
    """Class numbers [n] of the test set."""
    scores = found.test @ weight[:, :-1].T + weight[:, -1]
    return np.asarray(scores.argmax(axis=1), np.int64)


def delivered(setting: Setting, kept: list[tuple[Matrix, float]]) -> dict[str, Matrix]:
    """The heads that a study could deliver: the last, averages of the last, and each denoised."""
    total = len(kept)
    stack = [weight for weight, _ in kept]
    weights = {"last": np.eye(total)[-1]}
    for share in (0.25, 0.5):
        last = math.ceil(share * total)
        weights[f"tail {share:g}"] = np.r_[np.zeros(total - last), np.full(last, 1 / last)]
    for decay in (0.8, 0.9):
        part = decay ** np.arange(total)[::-1]
        weights[f"ema {decay:g}"] = part / part.sum()
    found: dict[str, Matrix] = {}
    for name, part in weights.items():
        mean = sum(np.float32(a) * w for a, w in zip(part, stack, strict=True))
        found[name] = np.asarray(mean)
        if setting.strategy == "fedavgm":
            deviation = math.sqrt(_variance(setting, part, [v for _, v in kept]))
            change = shrink_singular_values(found[name][:, :-1], deviation)
            found[f"{name}, denoised"] = np.column_stack([change, found[name][:, -1]])
    return found


def _variance(setting: Setting, part: NDArray[np.float64], variances: list[float]) -> float:
    """Noise variance of Σ part_t x_t, x_t = Σ_s (1 − βᵗ⁻ˢ⁺¹) / (1 − β) Δ_s under momentum β."""
    beta, total = setting.momentum, 0.0
    for first, variance in enumerate(variances):
        times = np.arange(1, len(variances) - first + 1)
        total += variance * float((part[first:] * (1 - beta**times) / (1 - beta)).sum()) ** 2
    return total
