"""Statistics over paired seeds: networks of one seed start alike, so it is their differences that are tested."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from bats_lab.plots.runs import spread_text

__all__ = [
    "LEVEL",
    "Paired",
    "bonferroni",
    "difference_text",
    "equivalence",
    "equivalence_power",
    "holm",
    "mean_and_std",
    "paired",
    "power",
]

#: Corrected probability below which a difference counts as more than chance.
LEVEL = 0.05


class Paired(NamedTuple):
    """Two treatments over the same seeds.

    Attributes
    ----------
    difference, low, high : float
        Mean difference, and the ends of its 95 % confidence interval (Student's t); NaN for the ends with one seed.
    p : float
        Probability of a difference at least as large if there were none (paired t-test, two-sided); NaN with one seed.
    seeds : int
        Seeds of which both are known.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int


def paired(values: npt.ArrayLike, baseline: npt.ArrayLike) -> Paired:
    """Compare two treatments seed by seed.

    Parameters
    ----------
    values, baseline : array_like, (seed,)
        What is measured under either; a seed with NaN in one of them is left out.

    Raises
    ------
    ValueError
        If they differ in length.

    Examples
    --------
    >>> result = paired([0.92, 0.93, 0.95], [0.90, 0.92, 0.92])
    >>> round(result.difference, 3), result.seeds, round(result.p, 3)
    (0.02, 3, 0.074)
    """
    a, b = np.asarray(values, float), np.asarray(baseline, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"values has shape {a.shape} and baseline {b.shape}; both must be (seed,).")
    known = ~np.isnan(a - b)
    a, b = a[known], b[known]
    difference = float((a - b).mean()) if len(a) else np.nan
    if len(a) < 2:
        return Paired(difference, np.nan, np.nan, np.nan, len(a))
    if np.ptp(a - b) == 0:  # of the very same difference in each no distribution can be told
        return Paired(difference, difference, difference, np.nan if difference else 1.0, len(a))
    with warnings.catch_warnings(category=RuntimeWarning, action="ignore"):  # where next to nothing differs
        test = stats.ttest_rel(a, b)
        interval = test.confidence_interval(0.95)
    return Paired(difference, float(interval.low), float(interval.high), float(test.pvalue), len(a))


def equivalence(values: npt.ArrayLike, baseline: npt.ArrayLike, margin: float) -> float:
    """Test that two treatments differ by less than a margin, seed by seed (two one-sided t-tests; Schuirmann, 1987).

    That no difference was found does not say that there is none; this does.

    Parameters
    ----------
    values, baseline : array_like, (seed,)
        As in :func:`paired`.
    margin : float
        Above 0, in the unit of the values.

    Returns
    -------
    float
        Probability of a mean difference so far within the margins if the true one were at the nearer of them; NaN with
        fewer than two seeds.

    Examples
    --------
    >>> round(equivalence([97.1, 97.0, 97.2, 97.1], [97.0, 97.1, 97.1, 97.2], 0.2), 3)
    0.02
    """
    if not margin > 0:
        raise ValueError(f"margin is {margin}; it must be above 0.")
    difference = np.asarray(values, float) - np.asarray(baseline, float)
    difference = difference[~np.isnan(difference)]
    if len(difference) < 2:
        return np.nan
    if np.ptp(difference) == 0:  # no scatter to hold the margin against
        return 0.0 if abs(difference[0]) < margin else 1.0
    sides = ((-margin, "greater"), (margin, "less"))
    return max(float(stats.ttest_1samp(difference, at, alternative=side).pvalue) for at, side in sides)


def power(effect: float, seeds: int, level: float = LEVEL) -> float:
    """Return the probability that a paired t-test (two-sided) sees a difference.

    Parameters
    ----------
    effect : float
        The difference in standard deviations of the differences.
    seeds : int
        At least 2.
    level : float
        Probability below which it counts as seen, divided by the number of comparisons where several are corrected for.

    Examples
    --------
    >>> round(power(1.0, 5), 2), round(power(1.0, 5, 0.05 / 24), 2), round(power(1.0, 20, 0.05 / 24), 2)
    (0.4, 0.03, 0.8)
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}; it must be at least 2.")
    bound, shift = stats.t.isf(level / 2, seeds - 1), effect * np.sqrt(seeds)
    seen: float = stats.nct.sf(bound, seeds - 1, shift) + stats.nct.cdf(-bound, seeds - 1, shift)
    return float(seen)


def equivalence_power(std: float, seeds: int, margin: float, level: float = LEVEL) -> float:
    """Return the probability that :func:`equivalence` shows two treatments to be equal that do not differ at all.

    Parameters
    ----------
    std : float
        Standard deviation of the differences, in the unit of the margin; above 0.
    seeds : int
        At least 2.
    margin : float
        Within which they count as equal.
    level : float
        As in :func:`power`.

    Examples
    --------
    >>> [round(equivalence_power(0.13, seeds, 0.2, 0.05 / 6), 2) for seeds in (5, 20)]
    [0.25, 1.0]
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}; it must be at least 2.")
    # The mean must stay so far within the margin; how far depends on the standard deviation that happens to be seen,
    # over whose distribution this is the mean.
    shares = (np.arange(5000) + 0.5) / 5000
    seen = np.sqrt(stats.chi2.ppf(shares, seeds - 1) / (seeds - 1))
    room = margin * np.sqrt(seeds) / std - stats.t.isf(level, seeds - 1) * seen
    return float(np.mean(np.clip(2 * stats.norm.cdf(room) - 1, 0, None)))


def difference_text(against: Any, digits: int = 1) -> str:
    """Write a difference and its 95 % confidence interval, of :class:`Paired` or a row of a table with its fields.

    Examples
    --------
    >>> difference_text(paired([97.0, 98.0, 99.5], [96.0, 96.5, 97.0]))
    '+1.7 [-0.2, +3.6]'
    """
    interval = f" [{against.low:+.{digits}f}, {against.high:+.{digits}f}]" if np.isfinite(against.low) else ""
    return f"{against.difference:+.{digits}f}{interval}"


def holm(p: npt.ArrayLike) -> np.ndarray:
    """Correct probabilities for being the smallest of many (Holm, 1979); NaN stays NaN and is not counted.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, float)
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    scaled = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def bonferroni(p: npt.ArrayLike) -> np.ndarray:
    """Correct probabilities by their number; NaN stays NaN and is not counted."""
    p = np.asarray(p, float)
    return np.minimum(p * np.count_nonzero(~np.isnan(p)), 1.0)


def mean_and_std(values: npt.ArrayLike, digits: int = 1) -> str:
    """Write mean and standard deviation (n - 1) over seeds, or both values of two; NaN is left out.

    Examples
    --------
    >>> mean_and_std([97.0, 98.0, 99.0]), mean_and_std([97.0, 98.0]), mean_and_std([97.26], digits=2)
    ('98.0 ± 1.0', '97.0 / 98.0', '97.26')
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if not len(known):
        return ""
    return spread_text(float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else np.nan, len(known), digits)
