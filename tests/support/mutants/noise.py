"""Broken noise: too little, of another distribution, or used twice."""

import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from cloister.privacy import mechanism
from cloister.privacy.clipping import ClippedSum
from cloister.privacy.entropy import Entropy, OsEntropy
from cloister.privacy.noise import NoisedSum, add_noise
from tests.support.entropy import FromNormals, normals
from tests.support.mutants.registry import MakeEntropy, mutant, noise_is

Array = np.ndarray


def tensors_are(patch: pytest.MonkeyPatch, broken: Callable[[list[Array]], list[Array]]) -> None:
    """Each release's noise is a function of sound noise, one flat array a tensor."""

    def noised(clipped: ClippedSum, sigma: float, entropy: Entropy) -> NoisedSum:
        deviation = sigma * clipped.bound / clipped.grid
        drawn = broken([normals(t.numel()) for t in clipped.tensors])
        total = [
            t + torch.from_numpy(np.rint(d * deviation).astype(np.int64)).view(t.shape)
            for t, d in zip(clipped.tensors, drawn, strict=True)
        ]
        return NoisedSum(tuple((t.double() * clipped.grid).float() for t in total))

    noise_is(patch, noised)


@mutant("noise", "noise scale")
def noise_off(patch: pytest.MonkeyPatch) -> None:
    noise_is(patch, lambda c, s, e: add_noise(c, 0.0, e))


@mutant("noise", "noise scale")
def noise_halved(patch: pytest.MonkeyPatch) -> None:
    noise_is(patch, lambda c, s, e: add_noise(c, s / 2, e))


@mutant("noise", "noise scale")
def noise_at_four_fifths(patch: pytest.MonkeyPatch) -> None:
    noise_is(patch, lambda c, s, e: add_noise(c, s * 0.8, e))


@mutant("noise", "noise scale")
def noise_at_97_hundredths(patch: pytest.MonkeyPatch) -> None:
    noise_is(patch, lambda c, s, e: add_noise(c, s * 0.97, e))


@mutant("noise", "grid")
def float_noise(patch: pytest.MonkeyPatch) -> None:
    def broken(clipped: ClippedSum, sigma: float, entropy: Entropy) -> NoisedSum:
        deviation = sigma * clipped.bound
        return NoisedSum(
            tuple(
                (
                    t * clipped.grid
                    + torch.from_numpy(normals(t.numel())).view(t.shape) * deviation
                ).float()
                for t in clipped.tensors
            )
        )

    noise_is(patch, broken)


@mutant("noise", "noise repeats")
def second_half_of_each_tensor_repeats_the_first(patch: pytest.MonkeyPatch) -> None:
    tensors_are(patch, lambda drawn: [np.resize(d[: -(-len(d) // 2)], len(d)) for d in drawn])


@mutant("noise", "noise across values")
def second_half_is_the_first_scaled_and_mixed(patch: pytest.MonkeyPatch) -> None:
    def mixed(d: Array) -> Array:
        half = len(d) // 2
        copy = 0.8 * d[:half] + 0.6 * normals(half)
        return np.concatenate([d[:half], -copy, d[2 * half :]])

    tensors_are(patch, lambda drawn: [mixed(d) for d in drawn])


@mutant("noise", "noise repeats")
def second_half_is_the_first_with_random_signs(patch: pytest.MonkeyPatch) -> None:
    def signed(d: Array) -> Array:
        half = len(d) // 2
        return np.concatenate([d[:half], d[:half] * np.sign(normals(half)), d[2 * half :]])

    tensors_are(patch, lambda drawn: [signed(d) for d in drawn])


@mutant("noise", "noise values")
def second_half_is_the_first_permuted(patch: pytest.MonkeyPatch) -> None:
    def permuted(d: Array) -> Array:
        half = len(d) // 2
        order = np.random.default_rng().permutation(half)
        return np.concatenate([d[:half], -d[:half][order], d[2 * half :]])

    tensors_are(patch, lambda drawn: [permuted(d) for d in drawn])


@mutant("noise", "noise of each tensor")
def tensors_of_at_most_8_values_without_noise(patch: pytest.MonkeyPatch) -> None:
    tensors_are(patch, lambda drawn: [d * (len(d) > 8) for d in drawn])


@mutant("noise", "noise of each tensor")
def adapter_a_without_noise(patch: pytest.MonkeyPatch) -> None:
    tensors_are(patch, lambda drawn: [0 * drawn[0], *drawn[1:]])


@mutant("noise", "noise of each value")
def last_value_of_each_tensor_without_noise(patch: pytest.MonkeyPatch) -> None:
    tensors_are(patch, lambda drawn: [d * (np.arange(len(d)) < len(d) - 1) for d in drawn])


@mutant("noise", "noise across tensors")
def one_tensor_s_noise_is_another_s_reversed(patch: pytest.MonkeyPatch) -> None:
    def reversed_copy(drawn: list[Array]) -> list[Array]:
        made: list[Array] = []
        for d in drawn:
            before = next((m for m in made if len(m) == len(d)), None)
            made.append(d if before is None else 0.9 * before[::-1] + np.sqrt(0.19) * d)
        return made

    tensors_are(patch, reversed_copy)


@mutant("noise", "noise across values")
def one_normal_for_each_four_values(patch: pytest.MonkeyPatch) -> MakeEntropy:
    return lambda: FromNormals(lambda count: np.repeat(normals(-(-count // 4)), 4)[:count])


@mutant("noise", "noise shape")
def uniform_noise(patch: pytest.MonkeyPatch) -> MakeEntropy:
    return lambda: FromNormals(lambda count: (ndtr(normals(count)) - 0.5) * np.sqrt(12))


@mutant("noise", "noise shape")
def laplace_noise(patch: pytest.MonkeyPatch) -> MakeEntropy:
    def laplace(count: int) -> Array:
        u = ndtr(normals(count)) - 0.5
        return -np.sign(u) * np.log1p(-2 * np.abs(u)) / np.sqrt(2)

    return lambda: FromNormals(laplace)


@mutant("noise", "noise tails")
def noise_truncated_at_three_deviations(patch: pytest.MonkeyPatch) -> MakeEntropy:
    inside = ndtr(3.0) - ndtr(-3.0)
    scale = 1 / np.sqrt(1 - 2 * 3 * np.exp(-4.5) / np.sqrt(2 * np.pi) / inside)
    return lambda: FromNormals(
        lambda count: scale * ndtri(ndtr(-3.0) + inside * OsEntropy().uniform(count))
    )


@mutant("noise", "noise values")
def noise_on_a_coarse_grid(patch: pytest.MonkeyPatch) -> MakeEntropy:
    return lambda: FromNormals(lambda count: np.rint(normals(count) * 2**12) / 2**12)


@mutant("noise", "noise beside sums")
def noise_on_nonzero_gradients_only(patch: pytest.MonkeyPatch) -> None:
    def broken(clipped: ClippedSum, sigma: float, entropy: Entropy) -> NoisedSum:
        noised = add_noise(clipped, sigma, entropy).tensors
        if not any(bool(t.any()) for t in clipped.tensors):
            return NoisedSum(noised)
        return NoisedSum(tuple(n * (t != 0) for n, t in zip(noised, clipped.tensors, strict=True)))

    noise_is(patch, broken)


@mutant("noise", "noise beside sums")
def noise_added_before_the_clip(patch: pytest.MonkeyPatch) -> None:
    """Clips the noised sum to the largest sum that the batch's units could have."""

    def broken(clipped: ClippedSum, sigma: float, entropy: Entropy) -> NoisedSum:
        noised = add_noise(clipped, sigma, entropy).tensors
        if not any(bool(t.any()) for t in clipped.tensors):
            return NoisedSum(noised)
        norm = float(torch.cat([t.flatten() for t in noised]).norm())
        return NoisedSum(tuple(t * min(1.0, 20 * clipped.bound / norm) for t in noised))

    noise_is(patch, broken)


@mutant("noise", "noise beside batches")
def noise_scaled_by_the_realised_batch(patch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    draw = mechanism.Mechanism.draw

    def remembered(self: mechanism.Mechanism, count: int) -> Array:
        drawn = draw(self, count)
        # A tenth more noise beside batches above the mean, as much less beside the others.
        sizes.append(1 if len(drawn) > count * self.plan.sample_rate else -1)
        return drawn

    patch.setattr(mechanism.Mechanism, "draw", remembered)
    noise_is(patch, lambda c, s, e: add_noise(c, s * (1 + 0.1 * sizes[-1]), e))


@mutant("noise", "noise beside batches")
def coins_and_noise_from_one_stream(patch: pytest.MonkeyPatch) -> MakeEntropy:
    class OneStream(FromNormals):
        last = np.zeros(0)

        def uniform(self, count: int) -> Array:
            self.last = OsEntropy().uniform(count)
            return self.last

        def normal(self, count: int) -> Array:
            noise = normals(count)
            known = ndtri(self.last[:count] + 2.0**-54)
            noise[: len(known)] = known
            self.last = self.last[count:]
            return noise

    return OneStream


@mutant("noise", "noise across steps")
def same_seed_every_step(patch: pytest.MonkeyPatch) -> MakeEntropy:
    return lambda: FromNormals(lambda count: np.random.default_rng(3).standard_normal(count))


@mutant("noise", "noise across steps")
def every_step_takes_back_half_of_the_last(patch: pytest.MonkeyPatch) -> None:
    last: list[list[Array]] = []

    def mixed(drawn: list[Array]) -> list[Array]:
        before = last.pop() if last else drawn
        last.append(drawn)
        if [len(b) for b in before] != [len(d) for d in drawn]:
            return drawn
        return [(d - b) / np.sqrt(2) for d, b in zip(drawn, before, strict=True)]

    tensors_are(patch, mixed)


@mutant("noise", "noise across steps")
def noise_in_few_dimensions(patch: pytest.MonkeyPatch) -> MakeEntropy:
    """As many normals as half of the values, spread over all by a fixed rotation."""

    def spread(count: int) -> Array:
        rank = max(1, count // 2)
        basis = np.random.default_rng(count).standard_normal((rank, count)) / np.sqrt(rank)
        noise: Array = normals(rank) @ basis
        return noise

    return lambda: FromNormals(spread)


@mutant("noise", "noise repeats")
def noise_from_a_stored_pool(patch: pytest.MonkeyPatch) -> MakeEntropy:
    pool = np.random.default_rng().standard_normal(200_000)

    def taken(count: int) -> Array:
        start = int.from_bytes(os.urandom(4)) % (len(pool) - count)
        return pool[start : start + count]

    return lambda: FromNormals(taken)


@mutant("noise", "noise seeds")
def noise_seeded_by_16_bits(patch: pytest.MonkeyPatch) -> MakeEntropy:
    def seeded(count: int) -> Array:
        seed = int.from_bytes(os.urandom(2))
        return np.random.default_rng(seed).standard_normal(count)

    return lambda: FromNormals(seeded)


@mutant("noise", "noise seeds")
def fork_shared_randomness(patch: pytest.MonkeyPatch) -> MakeEntropy:
    """Every process starts from a copy of one generator."""

    class Copied(FromNormals):
        def __init__(self) -> None:
            self._generator = np.random.default_rng(11)

        def uniform(self, count: int) -> Array:
            return self._generator.random(count)

        def normal(self, count: int) -> Array:
            return self._generator.standard_normal(count)

    return Copied
