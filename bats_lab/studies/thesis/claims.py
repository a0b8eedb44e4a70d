"""The study of the thesis: its sweeps over the time step, its claims, and whether they hold here.

A :class:`Study` says what is run for one data set; a :class:`Claim` is a sentence of the thesis with the function that
holds it against results. The notebooks ``30_thesis_mnist``, ``31_thesis_emnist`` and ``32_thesis_fashion_mnist`` draw
the figures and print the verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.registry import DATASETS
from bats_lab.runs.metrics import pareto_front

__all__ = ["CLAIMS", "STUDIES", "Claim", "Findings", "Study", "Verdict", "judge", "stand_in", "study_configs"]


@dataclass(frozen=True)
class Study:
    """What the thesis ran on one data set.

    Attributes
    ----------
    dataset : str
        Data set, which is also the preset of Table 1.
    notebook : str
        Notebook that draws the figures.
    delta_t : tuple of float
        Time steps of the figures, and those that the text speaks of, in seconds.
    repeats : int
        Seeds.
    kept : tuple of float
        Time steps of which the first seed keeps its weights and the spikes of some test images, in seconds.
    """

    dataset: str
    notebook: str
    delta_t: tuple[float, ...]
    repeats: int
    kept: tuple[float, ...]


def _ms(*values: float) -> tuple[float, ...]:
    return tuple(round(value * 1e-3, 9) for value in values)


#: The studies by data set. The text on MNIST speaks of 9 ms and more, which its figures do not show.
STUDIES: dict[str, Study] = {
    study.dataset: study
    for study in (
        Study("mnist", "30_thesis_mnist", _ms(0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 5, _ms(4, 8)),
        Study("emnist", "31_thesis_emnist", _ms(0, 0.1, 0.5, 1, 2, 4, 5, 7, 8, 9, 10, 12, 15), 3, _ms(0, 8)),
        Study("fashion_mnist", "32_thesis_fashion_mnist", _ms(0, 0.5, 1, 3, 4, 5, 6, 7, 8, 9, 10), 2, _ms(3, 5, 6)),
    )
}

#: What ``--quick`` changes: a look in minutes, on digits that ship with the package.
QUICK = {"dataset": "mnist_small", "epochs": 3}


def study_configs(dataset: str, *, seeds: int | None = None, quick: bool = False) -> list[Config]:
    """Return the runs of a study, all time steps of one seed before those of the next.

    Parameters
    ----------
    dataset : str
        ``mnist``, ``emnist`` or ``fashion_mnist``.
    seeds : int or None
        Repeats; None: as many as the thesis made, or one for a quick look.
    quick : bool
        Train the same networks for three epochs on ``mnist_small`` in place of the data set.

    Raises
    ------
    ValueError
        If there is no such study, or `seeds` is below 1.
    """
    if dataset not in STUDIES:
        raise ValueError(f"There is no study {dataset!r}; there are {', '.join(STUDIES)}.")
    study = STUDIES[dataset]
    seeds = (1 if quick else study.repeats) if seeds is None else seeds
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; it must be at least 1.")
    # The preset is the study's, whatever data the networks are shown.
    preset = Config(dataset=dataset).to_dict() | (QUICK if quick else {})
    configs = []
    for seed in range(seeds):
        for delta_t in study.delta_t:
            kept = seed == 0 and delta_t in study.kept
            keep = {"keep_weights": "last" if kept else "none", "keep_samples": 5 if kept else 0}
            configs.append(Config.from_dict(preset | {"delta_t": delta_t, "seed": seed} | keep))
    return configs


def stand_in(results: xr.Dataset) -> str:
    """Say so in a sentence where a study's data are not those of the thesis; "" where they are.

    Parameters
    ----------
    results : xarray.Dataset
        Results of a study.
    """
    names = set(np.ravel(results["dataset"].values).tolist()) - {""}
    name = names.pop() if len(names) == 1 else ""
    if name not in STUDIES:
        return f"These runs were trained on {name or 'several data sets'}, not on the thesis' data: a look, no check."
    official = {
        split: next(f.count for f in DATASETS[name].files if f.array == f"x_{split}") for split in ("train", "test")
    }
    used = {split: int(results["n_samples"].sel(split=split).max()) for split in official}
    if used == official:
        return ""
    return (
        f"**{name} here is a stand-in** of {used['train']:,} training and {used['test']:,} test images; the official "
        f"set has {official['train']:,} and {official['test']:,}. Accuracies are not comparable to the last percent."
    )


# ------------------------------------------------------------------------------------------ what the thesis claims

#: Percentage points of accuracy within which two time steps count as equally accurate.
SIMILAR = 0.5
#: Percentage points below the best up to which a time step counts as one that learns.
LEARNS = 5.0
#: Level of the tests over paired seeds, before it is divided by the number of time steps that are looked at.
LEVEL = 0.05


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
        self.delta_t = [
            float(step) for step, there in zip(self.results["delta_t"].values, done.values, strict=True) if there
        ]

    def accuracy(self, delta_t: float, split: str = "test") -> np.ndarray:
        """Return accuracy in percent, (seed, epoch), of the seeds that are finished."""
        values = self.results["accuracy"].sel(delta_t=delta_t, split=split).transpose("seed", "epoch").values
        return 100 * values[np.isfinite(values).all(axis=1)]

    def final(self, delta_t: float, split: str = "test") -> np.ndarray:
        """Return accuracy in percent after the last epoch, (seed,)."""
        return self.accuracy(delta_t, split)[:, -1]

    def hidden_spikes(self, delta_t: float) -> np.ndarray:
        """Return spikes a test sample of all hidden layers after the last epoch, (seed,); NaN for a missing seed."""
        counts = self.results["spike_count"].sel(delta_t=delta_t, split="test").isel(epoch=-1)
        hidden = [str(name) for name in counts["layer"].values if name != "output"]
        total: np.ndarray = counts.sel(layer=hidden).sum("layer", min_count=1).transpose("seed").values
        return total

    def decision_ms(self, delta_t: float) -> float:
        """Return the mean time to decision after the last epoch, in ms."""
        return 1e3 * float(self.results["decision_time"].sel(delta_t=delta_t).isel(epoch=-1).mean())

    def confidence(self, delta_t: float, epoch: int = -1) -> np.ndarray:
        """Return mean prediction confidence over time, (time,)."""
        values = self.results["confidence"].sel(delta_t=delta_t).isel(epoch=epoch)
        mean: np.ndarray = values.mean([d for d in values.dims if d != "time"]).values
        return mean

    def need(self, *steps: float) -> None:
        """Raise LookupError that names the time steps of which there is no run, or if there is only one."""
        missing = [step for step in steps if step not in self.delta_t]
        if missing:
            raise LookupError(f"no finished run at Δt of {', '.join(_in_ms(step) for step in missing)}")
        if len(self.delta_t) < 2:
            raise LookupError("finished runs at one time step only")


@dataclass(frozen=True)
class Claim:
    """A sentence of the thesis that results can hold or not.

    Attributes
    ----------
    figure : str
        Figure of the thesis it stands by.
    text : str
        What the thesis says.
    check : callable
        Takes :class:`Findings` and returns whether it holds (None: these runs cannot tell), and what was found. Raises
        LookupError where runs are missing.
    """

    figure: str
    text: str
    check: Callable[[Findings], tuple[bool | None, str]]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds in results.

    Attributes
    ----------
    figure, text : str
        Of the claim.
    holds : bool or None
        None: these runs cannot tell.
    found : str
        The numbers.
    """

    figure: str
    text: str
    holds: bool | None
    found: str

    @property
    def word(self) -> str:
        """The verdict in words."""
        return {True: "holds", False: "does not hold", None: "open"}[self.holds]


def judge(dataset: str, results: xr.Dataset) -> list[Verdict]:
    """Hold the thesis' claims about a data set against results.

    Parameters
    ----------
    dataset : str
        Whose claims: ``mnist``, ``emnist`` or ``fashion_mnist``.
    results : xarray.Dataset
        Results of its study, finished or not.

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
            holds, found = claim.check(findings)
        except LookupError as error:
            holds, found = None, str(error.args[0])
        verdicts.append(Verdict(claim.figure, claim.text, None if holds is None else bool(holds), found))
    return verdicts


def _in_ms(delta_t: float) -> str:
    return f"{1e3 * delta_t:g} ms"


def _spread(values: np.ndarray, unit: str = " %", digits: int = 1) -> str:
    """Write mean and standard deviation over seeds."""
    values = values[np.isfinite(values)]
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}{unit}"


def _falls(findings: Findings, steps: list[float], *, to_the_end: bool) -> tuple[bool, str]:
    """Whether accuracy falls at every one of some time steps: nearly each epoch (`to_the_end`), or after its best."""
    told, holds = [], True
    for step in steps:
        mean = findings.accuracy(step).mean(axis=0)
        falls = int((np.diff(mean) < 0).sum())
        # A step or two may go up by chance.
        falling = mean[-1] < mean[0] - SIMILAR and falls >= 0.75 * (len(mean) - 1)
        holds &= falling if to_the_end else mean[-1] < mean.max() - SIMILAR
        told.append(
            f"{_in_ms(step)}: {mean[0]:.1f} % after epoch 1, best {mean.max():.1f} %, {_spread(findings.final(step))} "
            f"after {len(mean)}, fell in {falls} of {len(mean) - 1} steps"
        )
    return holds, "; ".join(told)


def _mnist_collapse(findings: Findings) -> tuple[bool | None, str]:
    findings.need(0.009)
    return _falls(findings, [step for step in findings.delta_t if step >= 0.009], to_the_end=True)


def _mnist_stable(findings: Findings) -> tuple[bool | None, str]:
    steps = [step for step in findings.delta_t if step < 0.008]
    findings.need(0.0005, 0.007)
    told, holds = [], True
    for split in ("train", "test"):
        means = {step: float(findings.final(step, split).mean()) for step in steps}
        best, worst = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        holds &= means[best] - means[worst] <= SIMILAR
        told.append(
            f"{split}: {_spread(findings.final(worst, split), digits=2)} at {_in_ms(worst)} to "
            f"{_spread(findings.final(best, split), digits=2)} at {_in_ms(best)}"
        )
    return holds, "; ".join(told)


def _sparser(findings: Findings) -> tuple[bool | None, str]:
    """Whether a time step spends fewer hidden spikes than the finest at a similar accuracy, paired over seeds."""
    from scipy import stats

    findings.need()
    finest, *others = findings.delta_t
    accuracy, spikes = findings.final(finest).mean(), findings.hidden_spikes(finest)
    candidates = [step for step in others if findings.final(step).mean() >= accuracy - SIMILAR]
    name = "continuous time" if finest == 0 else _in_ms(finest)
    told = f"{name}: {_spread(spikes, ' hidden spikes', 0)}"
    if not candidates:
        return False, f"{told}; no other time step is as accurate within {SIMILAR} points"
    best = min(candidates, key=lambda step: np.nanmean(findings.hidden_spikes(step)))
    difference = findings.hidden_spikes(best) - spikes
    difference = difference[np.isfinite(difference)]
    told += f"; fewest at {_in_ms(best)}: {_spread(findings.hidden_spikes(best), ' hidden spikes', 0)}"
    told += f" and {_spread(findings.final(best), digits=2)} against {_spread(findings.final(finest), digits=2)}"
    if difference.mean() >= 0:
        return False, told
    if len(difference) < 2:
        return None, f"{told}; one seed cannot tell whether that is chance"
    # Student's t by hand: SciPy's warns where the differences have next to no spread, which leaves no doubt.
    error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
    chance = float(stats.t.cdf(difference.mean() / error, len(difference) - 1)) if error else 0.0
    p = chance * len(candidates)
    told += f"; paired over {len(difference)} seeds p = {min(p, 1):.2g} after Bonferroni"
    return (True if p < LEVEL else None), told


def _finest_is_dominant(findings: Findings) -> tuple[bool | None, str]:
    """Whether no time step is ahead of 0.5 ms by half a percent of the target, after two epochs as in the thesis."""
    findings.need(0.0005)
    epoch = min(2, findings.results.sizes["epoch"]) - 1
    reference = findings.confidence(0.0005, epoch)
    excess = {step: findings.confidence(step, epoch) - reference for step in findings.delta_t if step != 0.0005}
    step = max(excess, key=lambda s: excess[s].max())
    at = int(excess[step].argmax())
    time = 1e3 * float(findings.results["time"].values[at])
    return excess[step].max() < 0.005, (
        f"after epoch {epoch + 1} another time step is ahead by at most {excess[step].max():+.3f} "
        f"({_in_ms(step)} at {time:g} ms, where 0.5 ms has {reference[at]:.3f})"
    )


def _later_decisions(findings: Findings) -> tuple[bool | None, str]:
    """Whether the time to decision grows with the time step, among the time steps that learn."""
    from scipy import stats

    best = max(float(findings.final(step).mean()) for step in findings.delta_t)
    steps = [step for step in findings.delta_t if findings.final(step).mean() > best - LEARNS]
    if len(steps) < 3:
        raise LookupError("fewer than three time steps learn")
    times = [findings.decision_ms(step) for step in steps]
    rank = float(stats.spearmanr(steps, times).statistic) if np.ptp(times) else 0.0
    return rank > 0.9, (
        f"{times[0]:.1f} ms at {_in_ms(steps[0])}, {times[-1]:.1f} ms at {_in_ms(steps[-1])}; rank correlation "
        f"{rank:.2f} over {len(steps)} time steps"
    )


def _latency_unaffected(findings: Findings) -> tuple[bool | None, str]:
    """Whether confidence halfway does not depend on the time step, up to 8 ms: less than 5 % of the target."""
    steps = [step for step in findings.delta_t if step <= 0.008]
    findings.need(0.0, 0.008)
    found = {step: float(findings.confidence(step)[list(findings.results["time"].values).index(0.1)]) for step in steps}
    low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    times = [findings.decision_ms(step) for step in steps]
    return found[high] - found[low] < 0.05, (
        f"confidence after 100 ms: {found[low]:.3f} ({_in_ms(low)}) to {found[high]:.3f} ({_in_ms(high)}); time to "
        f"decision {min(times):.1f} to {max(times):.1f} ms"
    )


def _continuous_is_best(findings: Findings) -> tuple[bool | None, str]:
    """Whether no time step is better than continuous time; open where the best is as accurate within half a point."""
    findings.need(0.0)
    told, holds = [], []
    for split in ("train", "test"):
        means = {step: float(findings.final(step, split).mean()) for step in findings.delta_t}
        best = max(means, key=means.__getitem__)
        holds.append(True if best == 0 else None if means[best] - means[0.0] <= SIMILAR else False)
        told.append(
            f"{split}: continuous {_spread(findings.final(0.0, split), digits=2)}, best "
            f"{_spread(findings.final(best, split), digits=2)} at {_in_ms(best) if best else 'continuous time'}"
        )
    verdict = False if False in holds else None if None in holds else True
    return verdict, "; ".join(told)


def _two_points_apart(findings: Findings) -> tuple[bool | None, str]:
    findings.need(0.0, 0.008)
    means = {step: float(findings.final(step).mean()) for step in findings.delta_t if step <= 0.008}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    apart = means[high] - means[low]
    return (
        1 <= apart <= 3,
        f"{apart:.1f} points: {means[low]:.2f} % at {_in_ms(low)}, {means[high]:.2f} % at {_in_ms(high)}",
    )


def _emnist_beyond(findings: Findings) -> tuple[bool | None, str]:
    steps = [step for step in findings.delta_t if step > 0.008]
    if not steps:
        raise LookupError("no finished run above 8 ms")
    falls, told = _falls(findings, steps, to_the_end=False)
    learns = all(findings.final(step).mean() > 20 for step in steps)  # ten times chance
    return falls and learns, told


def _front_is_discrete(findings: Findings) -> tuple[bool | None, str]:
    """Whether the Pareto front of final test accuracy over spikes holds a run on a grid."""
    spikes, accuracy, steps = [], [], []
    for step in findings.delta_t:
        counts = (
            findings.results["spike_count"].sel(delta_t=step, split="test").isel(epoch=-1).sum("layer", min_count=1)
        )
        for count, right in zip(
            counts.values,
            findings.results["accuracy"].sel(delta_t=step, split="test").isel(epoch=-1).values,
            strict=True,
        ):
            spikes.append(count)
            accuracy.append(right)
            steps.append(step)
    front = pareto_front(np.array(spikes), np.array(accuracy))
    on = "; ".join(f"{_in_ms(steps[i])}: {100 * accuracy[i]:.2f} %, {spikes[i]:.0f} spikes" for i in front)
    return any(steps[i] > 0 for i in front), f"on the front: {on}"


def _fashion_collapse(findings: Findings) -> tuple[bool | None, str]:
    findings.need(0.005)
    mean = findings.accuracy(0.005).mean(axis=0)
    return mean[-1] < mean.max() - 2, (
        f"5 ms: best {mean.max():.1f} % after epoch {mean.argmax() + 1}, {_spread(findings.final(0.005))} at the end"
    )


def _fashion_best(findings: Findings) -> tuple[bool | None, str]:
    findings.need(0.0, 0.003)
    best = max(findings.delta_t, key=lambda step: float(findings.final(step).mean()))
    apart = abs(float(findings.final(best).mean() - findings.final(0.0).mean()))
    return best == 0.003 and apart <= SIMILAR, (
        f"best at {_in_ms(best) if best else 'continuous time'}: {_spread(findings.final(best), digits=2)}; 3 ms "
        f"{_spread(findings.final(0.003), digits=2)}; continuous {_spread(findings.final(0.0), digits=2)}"
    )


def _linear_latency(findings: Findings) -> tuple[bool | None, str]:
    """Whether confidence after 100 ms falls along a line over the time steps that learn (R² of at least 0.9)."""
    best = max(float(findings.final(step).mean()) for step in findings.delta_t)
    steps = [step for step in findings.delta_t if findings.final(step).mean() > best - LEARNS]
    if len(steps) < 3:
        raise LookupError("fewer than three time steps learn")
    at = list(findings.results["time"].values).index(0.1)
    values = np.array([findings.confidence(step)[at] for step in steps])
    x = 1e3 * np.array(steps)
    slope, offset = np.polyfit(x, values, 1)
    variance = ((values - values.mean()) ** 2).sum()
    share = 1 - ((values - slope * x - offset) ** 2).sum() / variance if variance else 0.0
    return slope < 0 and share >= 0.9, (
        f"confidence after 100 ms: {values[0]:.3f} at {_in_ms(steps[0])}, {values[-1]:.3f} at {_in_ms(steps[-1])}; "
        f"slope {slope:+.4f} a ms, R² {share:.2f}"
    )


def _hidden_alike(findings: Findings) -> tuple[bool | None, str]:
    """Whether 5 ms does not learn what 3 ms learns while the hidden layers are as active within a factor of 2."""
    findings.need(0.003, 0.005)
    ratio = np.nanmean(findings.hidden_spikes(0.005)) / np.nanmean(findings.hidden_spikes(0.003))
    apart = findings.final(0.003).mean() - findings.final(0.005).mean()
    return apart > 2 and 0.5 < ratio < 2, (
        f"3 ms {_spread(findings.final(0.003))}, 5 ms {_spread(findings.final(0.005))}; hidden spikes at 5 ms are "
        f"{ratio:.2f} times those at 3 ms"
    )


def _small_weights(findings: Findings) -> tuple[bool | None, str]:
    """Whether the weights of the second hidden layer at 6 ms are low: their norm less than half of that at 3 ms."""
    findings.need(0.003, 0.006)
    norms = [
        float(findings.results["weight_norm"].sel(delta_t=step, layer="hidden_2").isel(epoch=-1).mean())
        for step in (0.003, 0.006)
    ]
    at_3, at_6 = norms
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
