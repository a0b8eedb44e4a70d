r"""Where training collapses under ``drop``, in a closed form; and why only Δt over the time constants matters.

A neuron that is fed steadily from the start has the synaptic current :math:`R\vartheta(1-e^{-t/\tau_s})`. Its
potential, reset by ϑ at each spike, is ϑ/2 on average and leaks with :math:`\tau = 2\tau_s`. So it spikes at the rate

.. math:: r(t) = R\,(1 - e^{-t/\tau_s}) - \frac{1}{2\tau}, \qquad
    n = \int_0^T r\,dt = R\,(T - \tau_s e) - \frac{T}{2\tau}, \qquad e = 1 - e^{-T/\tau_s} .

It is fastest at the end of the window. Once its intervals there are shorter than a tick, crossings meet the neuron's
own unsent spike; so a target of `n` spikes can be learned up to the time step at which :math:`r(T)\,\Delta t^* = 1`:

.. math:: \frac{1}{\Delta t^*} = \Bigl(n + \frac{T}{2\tau}\Bigr)\frac{e}{T - \tau_s e} - \frac{1}{2\tau} .
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.errors import DivergedError
from bats_lab.network.feedforward import Network
from bats_lab.runs.training import input_spikes, train_group

__all__ = ["collapse_law", "collapse_step", "law_error", "observed_steps", "scaling_check"]


def collapse_step(target: float, duration: float, tau_syn: float) -> float:
    """Return the time step, in seconds, from which on a target count is not learned under ``drop``.

    Parameters
    ----------
    target : float
        Spikes that the true class's neuron is to send.
    duration, tau_syn : float
        Window and synaptic time constant in seconds.

    Examples
    --------
    >>> [round(1e3 * collapse_step(n, 0.2, 0.13), 1) for n in (8, 15, 25)]
    [15.3, 8.2, 5.0]
    """
    tau, e = 2 * tau_syn, -math.expm1(-duration / tau_syn)
    return 1 / ((target + duration / (2 * tau)) * e / (duration - tau_syn * e) - 1 / (2 * tau))


def collapse_law(
    config: Config,
    data: ImageData,
    *,
    targets: Sequence[float] = (8.0, 15.0, 25.0),
    durations: Sequence[float] = (0.1, 0.2, 0.3),
    time_constants: Sequence[float] = (0.065, 0.13, 0.26),
    ratios: Sequence[float] = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0),
    device: str = "auto",
) -> xr.Dataset:
    """Train networks of many targets, windows and time constants at time steps around the predicted collapse of each.

    Parameters
    ----------
    config, data, device
        As in :func:`bats_lab.runs.training.train`; the run holds out images for validation. Inputs fall in the first
        half of each window.
    targets, durations, time_constants, ratios : sequence of float
        Target counts, windows and synaptic time constants (s), and time steps in units of :func:`collapse_step`.

    Returns
    -------
    xarray.Dataset
        `accuracy` on the images held out, and crossings `dropped` by an output neuron per sample: (target, duration,
        tau_syn, ratio), where ratio 0 is continuous time. NaN where training diverged.
    """
    shape = len(targets), len(durations), len(time_constants), len(ratios) + 1
    found = np.full((2, *shape), np.nan)
    for place in np.ndindex(shape[:-1]):
        target, duration, tau_syn = (v[i] for v, i in zip((targets, durations, time_constants), place, strict=True))
        step = collapse_step(target, duration, tau_syn)
        times = {"duration": duration, "encoding_window": duration / 2, "tau_syn": tau_syn}
        own = config.replace(target_true=target, **times)
        runs = [own.replace(delta_t=ratio * step) for ratio in (0.0, *ratios)]
        for i, training in enumerate(train_group(runs, data, device=device)):
            if isinstance(training, DivergedError):
                continue
            measured = training.records[-1].validation
            assert measured is not None, "the run holds out images"
            found[:, *place, i] = measured.accuracy, measured.dropped[-1] / data.n_classes
    dims = ("target", "duration", "tau_syn", "ratio")
    return xr.Dataset(
        {name: (dims, values) for name, values in zip(("accuracy", "dropped"), found, strict=True)},
        {"target": list(targets), "duration": list(durations), "tau_syn": list(time_constants)}
        | {"ratio": [0.0, *ratios]},
    )


def observed_steps(law: xr.Dataset, lost: float = 0.1) -> xr.DataArray:
    """Return where networks have lost so much accuracy, in units of the predicted step: (target, duration, tau_syn).

    Interpolated between the ratios on a logarithmic scale; NaN where they lose less at all of them, or that much at the
    finest already.
    """
    accuracy = law["accuracy"]
    losses = accuracy.sel(ratio=0.0) - accuracy.where(accuracy["ratio"] > 0, drop=True)
    log = np.log(losses["ratio"].values)

    def first(values: np.ndarray) -> float:
        over = np.flatnonzero(values >= lost)
        if not len(over) or over[0] == 0:
            return np.nan
        below, above = over[0] - 1, over[0]
        share = (lost - values[below]) / (values[above] - values[below])
        return float(np.exp(log[below] + share * (log[above] - log[below])))

    return xr.apply_ufunc(first, losses, input_core_dims=[["ratio"]], vectorize=True)


def law_error(law: xr.Dataset, lost: float = 0.1) -> tuple[float, float, int]:
    """Return observed over predicted step, its geometric mean and standard deviation (a factor), and how many."""
    log = np.log(observed_steps(law, lost).values.ravel())
    log = log[np.isfinite(log)]
    spread = float(np.exp(log.std(ddof=1))) if len(log) > 1 else math.nan
    return float(np.exp(log.mean())) if len(log) else math.nan, spread, len(log)


def scaling_check(
    network: Network,
    config: Config,
    images: np.ndarray,
    *,
    factors: Sequence[float] = (0.1, 0.5, 2.0, 10.0),
) -> xr.Dataset:
    """Scale window, encoding window, time constants and time step together, and count the spikes that stay.

    Parameters
    ----------
    network : Network
        In float64, with the times of `config`. Its potential is a sum of weights times a time, so that weights are
        divided by the factor.
    config : Config
        Time step, collision rule and times.
    images : ndarray of uint8, (sample, row, column)
    factors : sequence of float

    Returns
    -------
    xarray.Dataset
        `same`: the share of spikes, of all layers, that are sent on the same tick, over `factor` and `scaled`: ``all``,
        or ``all but the time step``, for which times are compared instead of ticks.
    """

    def sent(factor: float, step: float) -> list[np.ndarray]:
        own = config.replace(
            duration=config.duration * factor, encoding_window=config.encoding_window * factor, delta_t=step,
            tau_syn=config.tau_syn * factor, dtype="float64",
        )  # fmt: skip
        scaled = Network.from_config(own, network.sizes[0], network.sizes[-1], device="cpu")
        scaled.set_weights([w / factor for w in network.weights])
        return [layer.discretized / factor for layer in scaled.simulate(input_spikes(images, own), rule=config.rule)]

    plain = sent(1.0, config.delta_t)

    def same(factor: float, step: float) -> float:
        pairs = list(zip(plain, sent(factor, step), strict=True))
        equal = sum(int((np.isclose(a, b, rtol=1e-6, atol=0) & np.isfinite(a)).sum()) for a, b in pairs)
        return equal / max(sum(max(np.isfinite(a).sum(), np.isfinite(b).sum()) for a, b in pairs), 1)

    values = [[same(factor, config.delta_t * factor), same(factor, config.delta_t)] for factor in factors]
    return xr.Dataset(
        {"same": (("factor", "scaled"), values)},
        {"factor": list(factors), "scaled": ["all", "all but the time step"]},
    )
