"""What a run cannot reach by what it asks for, said before it starts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.engine import Neurons
from bats_lab.spikes.estimators import Estimator
from bats_lab.spikes.grid import ticks_within
from bats_lab.spikes.rules import RULES

__all__ = ["check_window", "limit_warnings", "overflow_warning", "reachable_target_warning"]


def check_window(config: Config, data: ImageData) -> None:
    """Refuse a run whose window ends before its input does.

    Raises
    ------
    ValueError
        If input spikes fall, or may fall, behind the end of the window, `duration`.
    """
    if data.last_time > config.duration:
        raise ValueError(
            f"duration is {config.duration:.9g} s, and the last input spike of {data.name} comes at "
            f"{data.last_time:.9g} s ({data.scale}); it must be at least that."
        )
    if isinstance(data.x_train, np.ndarray):
        config.check_encoding()


def limit_warnings(configs: Iterable[Config]) -> list[str]:
    """Return what is to be said of some runs, each sentence once."""
    found = (warning(config) for config in configs for warning in (reachable_target_warning, overflow_warning))
    return list(dict.fromkeys(text for text in found if text is not None))


def reachable_target_warning(config: Config) -> str | None:
    """Say so where the true class's neuron cannot reach its target count, else return None."""
    if config.target_true > config.max_spikes_output:
        return (
            f"The true class's target of {config.target_true:g} spikes cannot be reached: "
            f"max_spikes_output is {config.max_spikes_output}."
        )
    if config.delta_t and RULES[config.rule].one_a_tick:
        ticks = ticks_within(config.duration, config.delta_t)
        if config.target_true > ticks:
            return (
                f"The true class's target of {config.target_true:g} spikes cannot be reached: rule {config.rule!r} "
                f"sends one spike a tick, and {config.duration:g} s have {ticks} ticks of {config.delta_t * 1e3:g} ms."
            )
    return None


def overflow_warning(config: Config) -> str | None:
    r"""Say so where the time step is so many time constants that the straight-through gradient may overflow.

    Notes
    -----
    What came before a crossing at :math:`t_k` may be sent up to Δt after it, so that in eqs. 12, 13 and 16 the
    exponential :math:`e^{2(d(t_z)-t_k)/\tau}` is up to :math:`e^{2\Delta t/\tau}`, once in each of `L` layers; Adam
    squares the gradient. So of the largest number `M` of a type :math:`e^{4L\Delta t/\tau} < M` is left.
    """
    if Estimator(config.estimator, config.surrogate_width).by_sent:
        return None
    n_layers, neurons = len(config.hidden) + 1, Neurons.of(config)
    constants = [neurons.time_constants(i) for i in range(n_layers)]
    # The faster of the two decays counts; with τ = 2 τ_s that is E² of eq. 12.
    tau = 2 * min(min(own) for own in constants)
    closed = all(own.closed for own in constants)
    named = "the membrane's time constant" if closed else "twice the shortest time constant"
    most = math.log(float(np.finfo(config.dtype).max)) / (4 * n_layers)
    if config.delta_t <= most * tau:
        return None
    return (
        f"delta_t is {config.delta_t / tau:.3g} times {named} of {tau * 1e3:g} ms: from "
        f"{most:.3g} times on the straight-through gradient of {n_layers} layers may overflow {config.dtype}."
    )
