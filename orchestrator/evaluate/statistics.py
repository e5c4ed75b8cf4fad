"""Means over held-out prompts with their uncertainty, and the paired comparison of two models.

Prompts are independent, completions of one prompt are not. So every function here takes one value a prompt: each is a
mean over the prompt's completions, or an unbiased estimate from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, inf, sqrt
from statistics import NormalDist

import numpy as np

Z_95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over prompts, and its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """The distance from the mean to the interval's farther end; the interval of a rate is not symmetric."""
        return max(self.mean - self.low, self.high - self.mean)


@dataclass(frozen=True, slots=True)
class Difference(Estimate):
    """The difference between two models on the same prompts; positive when the first is better."""

    p_value: float
    """Two-sided: the chance of a difference as large between two equal models."""


def pass_at_k(n: int, right: int, k: int) -> float:
    """Return the chance that one of `k` completions is right, estimated from `n` of which `right` are right.

    Unbiased: 1 - C(n - c, k) / C(n, k), Chen et al. 2021 (arXiv:2107.03374), equation 1. Raises ValueError for k > n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be known from {n} completions of a prompt")
    return 1.0 - comb(n - right, k) / comb(n, k)


def rate(values: Sequence[float], per_prompt: int = 1) -> Estimate:
    """Return the mean of values from 0 to 1, with Wilson's interval at the effective number of draws.

    With one completion a prompt this is Wilson's score interval, which unlike mean ± 1.96 standard errors also holds
    near 0 and 1: none right of 100 is [0%, 3.7%], not 0% ± 0. With several, the draws that count lie between the number
    of prompts and that of completions: p(1 - p) over the variance of the mean (Korn and Graubard 1998; for Wilson's
    interval Franco et al. 2019, J. Surv. Stat. Methodol. 7:334). Where all values are 0, or all 1, that is unknown and
    the number of prompts is taken, on the safe side.

    Args:
        values: one a prompt.
        per_prompt: the number of completions that each value is computed from.
    """
    n, mean = len(values), float(np.mean(values))
    spread = mean * (1 - mean)
    if n < 2 or spread <= 0:
        return wilson(mean, n)
    variance = float(np.var(values, ddof=1)) / n
    most = n * max(1, per_prompt)
    return wilson(mean, float(np.clip(spread / variance, n, most)) if variance > 0 else most)


def wilson(mean: float, draws: float) -> Estimate:
    """Return a share of `draws` independent draws with Wilson's score interval (1927); `draws` may be fractional."""
    squared = Z_95**2 / draws
    center = (mean + squared / 2) / (1 + squared)
    half = Z_95 * sqrt(mean * (1 - mean) / draws + squared / (4 * draws)) / (1 + squared)
    return Estimate(mean, min(mean, max(0.0, center - half)), max(mean, min(1.0, center + half)))


def average(values: Sequence[float]) -> Estimate:
    """Return the mean of values of any size, with a normal interval, which needs 30 prompts or more."""
    mean = float(np.mean(values))
    half = Z_95 * float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else inf
    return Estimate(mean, mean - half, mean + half)


@dataclass(slots=True)
class Clusters:
    """Sums over prompts, from which the mean over all their completions follows, with its interval.

    The prompts are the independent units, and may have different numbers of completions: the mean is a ratio of two
    sums over prompts, with the variance of a ratio estimator (Cochran 1977, Sampling Techniques, equation 6.13). For
    prompts of one size that is the variance of `average` and of `rate`. Sums of several steps add up.
    """

    prompts: int = 0
    completions: int = 0
    squared_sizes: int = 0
    """The sum of the squared numbers of completions."""
    total: float = 0.0
    """The sum of all values."""
    squares: float = 0.0
    """The sum of the squared totals of the prompts."""
    products: float = 0.0
    """The sum of each prompt's total times its number of completions."""

    def add(self, values: Sequence[float]) -> None:
        """Add a prompt with the values of its completions; nothing where it has none."""
        if values:
            size, total = len(values), float(sum(values))
            self.extend(Clusters(1, size, size * size, total, total * total, total * size))

    def extend(self, other: Clusters) -> None:
        self.prompts += other.prompts
        self.completions += other.completions
        self.squared_sizes += other.squared_sizes
        self.total += other.total
        self.squares += other.squares
        self.products += other.products

    def average(self) -> Estimate | None:
        """Return the mean with a normal interval, infinite for one prompt; None without completions."""
        if not self.completions:
            return None
        mean = self.total / self.completions
        half = Z_95 * sqrt(self._variance(mean)) if self.prompts > 1 else inf
        return Estimate(mean, mean - half, mean + half)

    def rate(self) -> Estimate | None:
        """Return the mean of values from 0 to 1 with an interval as that of `rate`; None without completions."""
        if not self.completions:
            return None
        mean = self.total / self.completions
        spread, draws = mean * (1 - mean), float(self.prompts)
        if spread > 0 and self.prompts > 1:
            variance, most = self._variance(mean), float(self.completions)
            draws = min(most, max(draws, spread / variance)) if variance > spread / most else most
        return wilson(min(1.0, max(0.0, mean)), draws)

    def _variance(self, mean: float) -> float:
        """Return the variance of the mean. Rounding may leave a little less than 0 where there is none."""
        squared = self.squares - 2 * mean * self.products + mean * mean * self.squared_sizes
        if squared < 1e-12 * self.squares:
            return 0.0
        return self.prompts / (self.prompts - 1) * squared / self.completions**2


def paired_difference(right: Sequence[int], baseline: Sequence[int], num_completions: int) -> Difference:
    """Return the share of right completions minus the baseline's.

    The interval is the normal one after Agresti and Min (2005, Stat. Med. 24:729): as if two more prompts had been
    asked, on which the models differ by +1, 0, 0, -1 with a weight of a half each. Without them, models that happen to
    agree on every prompt would get an interval of no width. The p-value is `sign_flip_p_value`'s.

    Args:
        right: number of right completions of each prompt.
        baseline: the same for the other model, in the same order.
        num_completions: number of completions of each prompt, by each model.
    """
    counts = [ours - theirs for ours, theirs in zip(right, baseline, strict=True)]
    differences = np.array(counts) / num_completions
    n = len(counts) + 2
    center = float(differences.sum()) / n
    variance = (float(np.square(differences).sum()) + 1) / n - center**2
    half = Z_95 * sqrt(variance / n)
    return Difference(
        mean=float(differences.mean()),
        low=max(-1.0, center - half),
        high=min(1.0, center + half),
        p_value=sign_flip_p_value(counts),
    )


def paired_mean(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Return the mean of the differences between two models on the same prompts, with a normal interval.

    How hard a prompt is for both drops out of the differences, whose spread alone counts: Miller 2024
    (arXiv:2411.00640), on paired differences. Values of any size; as `average` it needs 30 prompts or more.
    """
    return average([ours - theirs for ours, theirs in zip(values, baseline, strict=True)])


def sign_flip_p_value(differences: Sequence[int]) -> float:
    """Return the exact, two-sided p-value of the paired permutation test.

    Were the two models equal, each prompt's difference could as well have had the other sign. The p-value is the share
    of all 2^n choices of signs whose sum is at least as far from 0 as the one that was observed. Differences are whole
    numbers (of right completions), so that the sums can be counted one prompt at a time rather than enumerated: no
    normal approximation, no random resampling. With one completion a prompt this is McNemar's exact test.
    """
    sizes = [abs(difference) for difference in differences]
    total, observed = sum(sizes), abs(sum(differences))
    # chance[t]: that those with a positive sign sum up to t; the signed sum is then 2t - total.
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    for size in sizes:
        flipped = np.zeros_like(chance)
        flipped[size:] = chance[: total + 1 - size]
        chance = (chance + flipped) / 2
    is_as_far = np.abs(2 * np.arange(total + 1) - total) >= observed
    return min(1.0, float(chance[is_as_far].sum()))
