"""The claims of the thesis: each a sentence, with the function that holds it against results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats

from bats_lab.runs.metrics import pareto_front
from bats_lab.studies.statistics import LEVEL, mean_and_std, paired
from bats_lab.studies.study import Verdict

__all__ = ["CLAIMS", "Claim", "Findings", "judge"]

#: Percentage points of accuracy within which two time steps count as equally accurate.
SIMILAR = 0.5
#: Percentage points below the best up to which a time step counts as one that learns.
LEARNS = 5.0

#: Whether a claim holds (None: these runs cannot tell), and the numbers.
Answer = tuple[bool | None, str]


class Findings:
    """What the claims are held against: the measures of a study's runs under rule ``drop``, over time step and seed.

    Parameters
    ----------
    results : xarray.Dataset
        As :func:`bats_lab.open_results` returns them.

    Attributes
    ----------
    delta_t : list of float
        Time steps of which there is a finished run, in seconds, rising.
    """

    def __init__(self, results: xr.Dataset) -> None:
        if "rule" in results.dims:
            results = results.sel(rule="drop")
        others = [d for d in results["accuracy"].dims if d not in ("delta_t", "seed", "split", "epoch")]
        if others:
            raise ValueError(
                f"The results differ in {', '.join(map(str, others))} too; a study differs in delta_t and seed."
            )
        dims = [d for d in ("delta_t", "seed") if d not in results.dims]
        self.results = results.expand_dims(dims) if dims else results
        done = self.results["accuracy"].notnull().any(["split", "epoch", "seed"])
        self.delta_t = self.results["delta_t"].values[done.values].tolist()

    def accuracy(self, delta_t: float, split: str = "test") -> np.ndarray:
        """Return accuracy in percent, (seed, epoch), of the seeds that are finished."""
        values = self.results["accuracy"].sel(delta_t=delta_t, split=split).transpose("seed", "epoch").values
        return 100 * values[np.isfinite(values).all(axis=1)]

    def final(self, delta_t: float, split: str = "test") -> np.ndarray:
        """Return accuracy in percent after the last epoch, (seed,)."""
        return self.accuracy(delta_t, split)[:, -1]

    def means(self, steps: Sequence[float], split: str = "test") -> dict[float, float]:
        """Return the mean over seeds of :meth:`final`, by time step."""
        return {step: float(self.final(step, split).mean()) for step in steps}

    def learning(self) -> list[float]:
        """Return the time steps that learn, at least three; raises LookupError where there are fewer."""
        means = self.means(self.delta_t)
        steps = [step for step, mean in means.items() if mean > max(means.values()) - LEARNS]
        if len(steps) < 3:
            raise LookupError("fewer than three time steps learn")
        return steps

    def hidden_spikes(self, delta_t: float) -> np.ndarray:
        """Return spikes a test sample of all hidden layers after the last epoch, (seed,); NaN for a missing seed."""
        counts = self.results["spike_count"].sel(delta_t=delta_t, split="test").isel(epoch=-1)
        hidden = [str(name) for name in counts["layer"].values if name != "output"]
        total: np.ndarray = counts.sel(layer=hidden).sum("layer", min_count=1).transpose("seed").values
        return total

    def decision_ms(self, delta_t: float) -> float:
        """Return the mean time to decision after the last epoch, in ms."""
        return 1e3 * float(self.results["decision_time"].sel(delta_t=delta_t).isel(epoch=-1).mean())

    def confidence(self, delta_t: float, epoch: int = -1) -> xr.DataArray:
        """Return mean prediction confidence over time, (time,)."""
        values = self.results["confidence"].sel(delta_t=delta_t).isel(epoch=epoch)
        return values.mean([d for d in values.dims if d != "time"])

    def need(self, *steps: float) -> None:
        """Raise LookupError that names the time steps of which there is no run, or if there is only one."""
        missing = [step for step in steps if step not in self.delta_t]
        if missing:
            raise LookupError(f"no finished run at Δt of {', '.join(map(_ms, missing))}")
        if len(self.delta_t) < 2:
            raise LookupError("finished runs at one time step only")


@dataclass(frozen=True)
class Claim:
    """A sentence of the thesis that results can hold or not, and the figures it stands by.

    `check` takes :class:`Findings` and returns whether it holds (None: these runs cannot tell), and the numbers; it
    raises LookupError where runs are missing.
    """

    figure: str
    text: str
    check: Callable[[Findings], Answer]


def judge(dataset: str, results: xr.Dataset) -> list[Verdict]:
    """Hold the thesis' claims about a data set against the results of its study, finished or not.

    Returns
    -------
    list of Verdict
        One for each claim. Claims of which runs are missing are open.

    Raises
    ------
    ValueError
        If there is no such study, or the results differ in more than time step, seed and rule.
    """
    if dataset not in CLAIMS:
        raise ValueError(f"There is no study {dataset!r}; there are {', '.join(CLAIMS)}.")
    findings = Findings(results)
    verdicts = []
    for claim in CLAIMS[dataset]:
        try:
            holds, numbers = claim.check(findings)
        except LookupError as error:
            holds, numbers = None, str(error.args[0])
        verdicts.append(Verdict(claim.figure, claim.text, None if holds is None else bool(holds), numbers))
    return verdicts


# ------------------------------------------------------------------------------------------------- one check a claim


def _ms(delta_t: float) -> str:
    return f"{1e3 * delta_t:g} ms"


def _percent(findings: Findings, step: float, split: str = "test") -> str:
    return f"{mean_and_std(findings.final(step, split), 2)} % at {_ms(step)}"


def _ends(values: Mapping[float, float]) -> tuple[float, float]:
    """Return the time steps of the lowest and of the highest value."""
    return min(values, key=values.__getitem__), max(values, key=values.__getitem__)


def _falls(findings: Findings, steps: Sequence[float], *, to_the_end: bool) -> tuple[bool, str]:
    """Whether accuracy falls at every one of some time steps: nearly each epoch (`to_the_end`), or after its best."""
    lines, holds = [], True
    for step in steps:
        mean = findings.accuracy(step).mean(axis=0)
        falls, n = int((np.diff(mean) < 0).sum()), len(mean) - 1
        # An epoch or two may go up by chance.
        falling = mean[-1] < mean[0] - SIMILAR and falls >= 0.75 * n
        holds &= bool(falling if to_the_end else mean[-1] < mean.max() - SIMILAR)
        lines.append(
            f"{_ms(step)}: {mean[0]:.1f} → {mean.max():.1f} (best) → {mean[-1]:.1f} %, fell {falls} of {n} times"
        )
    return holds, "; ".join(lines)


def _mnist_collapse(findings: Findings) -> Answer:
    findings.need(0.009)
    return _falls(findings, [step for step in findings.delta_t if step >= 0.009], to_the_end=True)


def _mnist_stable(findings: Findings) -> Answer:
    findings.need(0.0005, 0.007)
    lines, holds = [], True
    for split in ("train", "test"):
        means = findings.means([step for step in findings.delta_t if step < 0.008], split)
        worst, best = _ends(means)
        holds &= means[best] - means[worst] <= SIMILAR
        lines.append(f"{split}: {_percent(findings, worst, split)} to {_percent(findings, best, split)}")
    return holds, "; ".join(lines)


def _sparser(findings: Findings) -> Answer:
    """Whether a time step spends fewer hidden spikes than the finest at a similar accuracy, paired over seeds."""
    findings.need()
    finest = findings.delta_t[0]
    means = findings.means(findings.delta_t)
    candidates = [step for step in findings.delta_t[1:] if means[step] >= means[finest] - SIMILAR]
    spikes = {step: findings.hidden_spikes(step) for step in (finest, *candidates)}

    def point(step: float) -> str:
        return f"{mean_and_std(spikes[step], 0)} hidden spikes, {_percent(findings, step)}"

    if not candidates:
        return False, f"{point(finest)}; no other time step is as accurate within {SIMILAR} points"
    best = min(candidates, key=lambda step: np.nanmean(spikes[step]))
    numbers = f"{point(finest)}; fewest: {point(best)}"
    test = paired(spikes[best], spikes[finest])
    if test.difference >= 0:
        return False, numbers
    if test.seeds < 2:
        return None, f"{numbers}; one seed cannot tell whether that is chance"
    # One-sided, after Bonferroni; the very same difference in each seed leaves no doubt.
    p = 0.0 if math.isnan(test.p) else min(test.p / 2 * len(candidates), 1.0)
    return (True if p < LEVEL else None), f"{numbers}; paired over {test.seeds} seeds p = {p:.2g}"


def _finest_is_dominant(findings: Findings) -> Answer:
    """Whether no time step is ahead of 0.5 ms by half a percent of the target, after two epochs as in the thesis."""
    findings.need(0.0005)
    epoch = min(2, findings.results.sizes["epoch"]) - 1
    finest = findings.confidence(0.0005, epoch)
    ahead = {step: findings.confidence(step, epoch) - finest for step in findings.delta_t if step != 0.0005}
    most = {step: float(lead.max()) for step, lead in ahead.items()}
    _, step = _ends(most)
    time = ahead[step].idxmax("time")
    return most[step] < 0.005, (
        f"after epoch {epoch + 1} {_ms(step)} is ahead by at most {most[step]:+.3f}, at {1e3 * float(time):g} ms, "
        f"where 0.5 ms has {float(finest.sel(time=time)):.3f}"
    )


def _later_decisions(findings: Findings) -> Answer:
    """Whether the time to decision grows with the time step, among the time steps that learn."""
    steps = findings.learning()
    times = [findings.decision_ms(step) for step in steps]
    rank = float(stats.spearmanr(steps, times).statistic) if np.ptp(times) else 0.0
    return rank > 0.9, (
        f"{times[0]:.1f} ms at {_ms(steps[0])}, {times[-1]:.1f} ms at {_ms(steps[-1])}; rank correlation "
        f"{rank:.2f} over {len(steps)} time steps"
    )


def _latency_unaffected(findings: Findings) -> Answer:
    """Whether confidence halfway does not depend on the time step, up to 8 ms: less than 5 % of the target."""
    findings.need(0.0, 0.008)
    steps = [step for step in findings.delta_t if step <= 0.008]
    halfway = {step: float(findings.confidence(step).sel(time=0.1)) for step in steps}
    low, high = _ends(halfway)
    times = [findings.decision_ms(step) for step in steps]
    return halfway[high] - halfway[low] < 0.05, (
        f"confidence after 100 ms: {halfway[low]:.3f} ({_ms(low)}) to {halfway[high]:.3f} ({_ms(high)}); time to "
        f"decision {min(times):.1f} to {max(times):.1f} ms"
    )


def _continuous_is_best(findings: Findings) -> Answer:
    """Whether no time step is better than continuous time; open where the best is as accurate within half a point."""
    findings.need(0.0)
    lines, ahead = [], []
    for split in ("train", "test"):
        means = findings.means(findings.delta_t, split)
        _, best = _ends(means)
        ahead.append(means[best] - means[0.0])
        lines.append(f"{split}: {_percent(findings, 0.0, split)}, best {_percent(findings, best, split)}")
    holds = True if max(ahead) == 0 else None if max(ahead) <= SIMILAR else False
    return holds, "; ".join(lines)


def _two_points_apart(findings: Findings) -> Answer:
    findings.need(0.0, 0.008)
    means = findings.means([step for step in findings.delta_t if step <= 0.008])
    low, high = _ends(means)
    apart = means[high] - means[low]
    return 1 <= apart <= 3, f"{apart:.1f} points: {_percent(findings, low)}, {_percent(findings, high)}"


def _emnist_beyond(findings: Findings) -> Answer:
    steps = [step for step in findings.delta_t if step > 0.008]
    if not steps:
        raise LookupError("no finished run above 8 ms")
    falls, numbers = _falls(findings, steps, to_the_end=False)
    return falls and min(findings.means(steps).values()) > 20, numbers  # ten times chance


def _front_is_discrete(findings: Findings) -> Answer:
    """Whether the Pareto front of final test accuracy over spikes holds a run on a grid."""
    last = findings.results[["accuracy", "spike_count"]].sel(split="test").isel(epoch=-1)
    runs = last.assign(spike_count=last["spike_count"].sum("layer", min_count=1)).stack(run=("delta_t", "seed"))
    runs = runs.isel(run=np.flatnonzero(runs["accuracy"].notnull()))
    spikes, accuracy, steps = (runs[name].values for name in ("spike_count", "accuracy", "delta_t"))
    front = pareto_front(spikes, accuracy)
    points = "; ".join(f"{_ms(steps[i])}: {100 * accuracy[i]:.2f} %, {spikes[i]:.0f} spikes" for i in front)
    return bool((steps[front] > 0).any()), f"on the front: {points}"


def _fashion_collapse(findings: Findings) -> Answer:
    findings.need(0.005)
    mean = findings.accuracy(0.005).mean(axis=0)
    best = mean.argmax()
    return mean[-1] < mean[best] - 2, f"best {mean[best]:.1f} % after epoch {best + 1}; {_percent(findings, 0.005)}"


def _fashion_best(findings: Findings) -> Answer:
    findings.need(0.0, 0.003)
    means = findings.means(findings.delta_t)
    _, best = _ends(means)
    numbers = ", ".join(_percent(findings, step) for step in (best, 0.003, 0.0))
    return best == 0.003 and abs(means[best] - means[0.0]) <= SIMILAR, f"the best, 3 ms and 0: {numbers}"


def _linear_latency(findings: Findings) -> Answer:
    """Whether confidence after 100 ms falls along a line over the time steps that learn (R² of at least 0.9)."""
    steps = findings.learning()
    values = [float(findings.confidence(step).sel(time=0.1)) for step in steps]
    line = stats.linregress(1e3 * np.array(steps), values)
    share = float(line.rvalue**2) if np.ptp(values) else 0.0
    return line.slope < 0 and share >= 0.9, (
        f"confidence after 100 ms: {values[0]:.3f} at {_ms(steps[0])}, {values[-1]:.3f} at {_ms(steps[-1])}; "
        f"slope {line.slope:+.4f} a ms, R² {share:.2f}"
    )


def _hidden_alike(findings: Findings) -> Answer:
    """Whether 5 ms does not learn what 3 ms learns while the hidden layers are as active within a factor of 2."""
    findings.need(0.003, 0.005)
    ratio = np.nanmean(findings.hidden_spikes(0.005)) / np.nanmean(findings.hidden_spikes(0.003))
    apart = findings.final(0.003).mean() - findings.final(0.005).mean()
    numbers = f"{_percent(findings, 0.003)}, {_percent(findings, 0.005)}, hidden spikes in the ratio 1 : {ratio:.2f}"
    return apart > 2 and 0.5 < ratio < 2, numbers


def _small_weights(findings: Findings) -> Answer:
    """Whether the weights of the second hidden layer at 6 ms are low: their norm less than half of that at 3 ms."""
    findings.need(0.003, 0.006)
    norms = findings.results["weight_norm"].sel(layer="hidden_2").isel(epoch=-1)
    at_3, at_6 = (float(norms.sel(delta_t=step).mean()) for step in (0.003, 0.006))
    return at_6 < at_3 / 2, f"Frobenius norm of the layer's weights: {at_3:.1f} at 3 ms, {at_6:.1f} at 6 ms"


_SPARSITY = "A suitable time step makes the network sparser at a high accuracy."
_SLOWER = "The larger the time step, the longer the network takes to its answer."

#: The claims of the thesis by data set, in the order of its figures.
CLAIMS: Mapping[str, tuple[Claim, ...]] = {
    "mnist": (
        Claim("1, 2", "From 9 ms on the network does not learn: accuracy falls from epoch to epoch.", _mnist_collapse),
        Claim("1, 2", "Below 8 ms accuracy remains stable, in training and test.", _mnist_stable),
        Claim("3", _SPARSITY, _sparser),
        Claim("4", "Prediction confidence is highest at 0.5 ms.", _finest_is_dominant),
        Claim("4", _SLOWER, _later_decisions),
    ),
    "emnist": (
        Claim("5, 6", "Continuous time has the highest accuracy, in training and test.", _continuous_is_best),
        Claim("6", "The best and the worst time step that converge are about 2 % apart.", _two_points_apart),
        Claim("6", "Above 8 ms the network loses accuracy but does learn.", _emnist_beyond),
        Claim("7", _SPARSITY, _sparser),
        Claim("8", "Latency does not depend on the time step.", _latency_unaffected),
        Claim("8", _SLOWER, _later_decisions),
        Claim("13", "A suitable time step improves the trade-off of accuracy against spikes.", _front_is_discrete),
    ),
    "fashion_mnist": (
        Claim("9, 10", "At 5 ms accuracy decreases.", _fashion_collapse),
        Claim("10", "Accuracy is highest at 3 ms; continuous time is as good within the spread.", _fashion_best),
        Claim("11", _SPARSITY, _sparser),
        Claim("12", "Confidence falls linearly with the time step.", _linear_latency),
        Claim("12", _SLOWER, _later_decisions),
        Claim("14, 15", "At 5 ms the network does not learn although its hidden layers behave alike.", _hidden_alike),
        Claim("17, 18", "At 6 ms the second hidden layer's weights stay low: vanishing gradients.", _small_weights),
    ),
}
