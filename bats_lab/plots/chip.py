"""Networks on a chip: what clock, word length and collision rule cost in accuracy, joules and milliseconds.

All plots take what :func:`bats_lab.deploy.open_deployment` returns, narrowed to one data set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import holoviews as hv
import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from bats_lab.config import RULES
from bats_lab.deploy import deployment_costs
from bats_lab.discretize import discretize
from bats_lab.energy import HARDWARE, NO_ENERGY, Hardware, active_share
from bats_lab.metrics import pareto_front
from bats_lab.plots import style
from bats_lab.plots.curves import over_delta_t, statistics
from bats_lab.plots.runs import check_choice, dataset_name

__all__ = [
    "plot_active_share",
    "plot_clock_and_word",
    "plot_deployment",
    "plot_energy",
    "plot_three_way",
]

_WIDTH, _HEIGHT = 330, 240
_TRAINED = 32
#: The hardware of the dense network's multiply-adds.
_CMOS = "45 nm CMOS"


# ------------------------------------------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class _Quantity:
    label: str
    unit: str = ""
    large_is_good: bool = False


#: What can be drawn of a deployment.
QUANTITIES = {
    "accuracy": _Quantity("accuracy", "%", large_is_good=True),
    "spikes": _Quantity("spikes per inference"),
    "synaptic_events": _Quantity("synaptic events per inference"),
    "active_share": _Quantity("active (neuron, tick) pairs", "%"),
    "energy": _Quantity("energy per inference", "µJ"),
    "decision_time": _Quantity("time to decision", "ms"),
}
#: How a chip updates its neurons.
UPDATES = {"event_driven": "event-driven", "clocked": "clocked"}


def narrowed(deployment: xr.Dataset, split: str | None = None) -> xr.Dataset:
    """Check a deployment and leave one data set, only seeds that were measured, and one split.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`bats_lab.deploy.open_deployment` returns it.
    split : str or None
        ``validation`` or ``test``; None: all.

    Raises
    ------
    TypeError
        If `deployment` is no Dataset.
    ValueError
        If it is no deployment, has several data sets or no such split, or if nothing was measured.
    """
    if not isinstance(deployment, xr.Dataset):
        raise TypeError(f"deployment is a {type(deployment).__name__}; it must be an xarray.Dataset.")
    for name in ("rule", "delta_t", "bits", "split"):
        if name not in deployment.dims:
            raise ValueError(f"The deployment has no dimension {name!r}; pass it as open_deployment returns it.")
    if deployment.sizes.get("dataset", 1) > 1:
        names = deployment["dataset"].values.tolist()
        raise ValueError(
            f"The deployment holds several data sets ({', '.join(names)}), and this plot shows one; select it first, "
            f"as in deployment.sel(dataset={names[0]!r})."
        )
    if "dataset" in deployment.dims:
        deployment = deployment.isel(dataset=0)
    if "seed" not in deployment.dims:
        deployment = deployment.expand_dims("seed")
    known = deployment["accuracy"].notnull()
    seeds = known.any([d for d in known.dims if d != "seed"]).values
    if not seeds.any():
        raise ValueError("Nothing was measured of this deployment yet; there is nothing to plot.")
    deployment = deployment.isel(seed=np.flatnonzero(seeds))
    if split is None:
        return deployment
    check_choice("split", split, tuple(map(str, deployment["split"].values)))
    return deployment.sel(split=split)


def hardware_of(name: str) -> Hardware:
    """Return a row of the table of published energies."""
    check_choice("hardware", name, tuple(HARDWARE))
    return HARDWARE[name]


def energies(here: xr.Dataset, hardware: str, costs: xr.Dataset | None = None) -> tuple[xr.Dataset, hv.Dimension]:
    """Return what an inference costs on one hardware, in the unit in which it is drawn.

    Parameters
    ----------
    here : xarray.Dataset
        A deployment as :func:`narrowed` returns it.
    hardware : str
        On what.
    costs : xarray.Dataset or None
        What :func:`bats_lab.deploy.deployment_costs` returned for it; None: it is called.

    Returns
    -------
    xarray.Dataset
        ``event_driven`` and ``clocked``: in µJ, or, where no joules are published, in effective synaptic operations.
    holoviews.Dimension
        The axis.

    Raises
    ------
    ValueError
        If nothing is published about the hardware.
    """
    chosen = hardware_of(hardware)
    if costs is None:
        costs = deployment_costs(here, hardware={hardware: chosen})
    found = costs.sel(hardware=hardware)
    if chosen.published:
        names, factor = list(UPDATES), 1e6
        axis = hv.Dimension("energy", label=f"energy per inference, {hardware}", unit="µJ")
    elif chosen.relative_update is not None:
        names, factor = [f"operations_{name}" for name in UPDATES], 1.0
        axis = hv.Dimension("energy", label=f"effective synaptic operations per inference, {hardware}")
    else:
        raise ValueError(f"{hardware}: {NO_ENERGY}, and no operations either; there is nothing to plot.")
    return xr.Dataset({new: factor * found[old] for new, old in zip(UPDATES, names, strict=True)}), axis


def measured(
    here: xr.Dataset, quantity: str, *, hardware: str, updates: str, costs: xr.Dataset | None = None
) -> tuple[xr.DataArray, hv.Dimension]:
    """Return a quantity of each point in the unit in which it is drawn, and its axis.

    Parameters
    ----------
    here : xarray.Dataset
        A deployment as :func:`narrowed` returns it.
    quantity : str
        One of :data:`QUANTITIES`.
    hardware, updates : str
        For ``energy``: on what, ``event_driven`` or ``clocked``.
    costs : xarray.Dataset or None
        What :func:`bats_lab.deploy.deployment_costs` returned for it; None: it is called where that is needed.
    """
    check_choice("quantity", quantity, tuple(QUANTITIES))
    check_choice("updates", updates, tuple(UPDATES))
    if quantity == "energy":
        both, axis = energies(here, hardware, costs)
        return both[updates], axis.clone(label=f"{axis.label}, {UPDATES[updates]}")
    chosen = QUANTITIES[quantity]
    if quantity == "accuracy":
        values = 100 * here["accuracy"]
    elif quantity == "decision_time":
        values = 1e3 * here["decision_time"]
    elif quantity == "active_share":
        values = 100 * (deployment_costs(here) if costs is None else costs)["active_share"]
    else:
        name = "spike_count" if quantity == "spikes" else quantity
        values = here[name].sum("layer", min_count=1)
    split = f"{here['split'].item()} " if quantity == "accuracy" and here["split"].ndim == 0 else ""
    return values, hv.Dimension(quantity, label=split + chosen.label, unit=chosen.unit or None)


def rules_of(here: xr.Dataset, rule: str | None = None) -> list[str]:
    """Return the rules of which something was measured, or the one that is asked for."""
    known = here["accuracy"].notnull().any([d for d in here["accuracy"].dims if d != "rule"])
    rules = [name for name in RULES if name in here["rule"].values and bool(known.sel(rule=name))]
    if rule is None:
        return rules
    check_choice("rule", rule, tuple(rules))
    return [rule]


def word_label(bits: int) -> str:
    """Name a word length.

    Examples
    --------
    >>> word_label(4), word_label(32)
    ('4', '32, as trained')
    """
    return "32, as trained" if bits == _TRAINED else str(bits)


def _title(here: xr.Dataset, *parts: str, spread: bool = True) -> str:
    """Tell data set, images and seeds."""
    n, what = here.sizes["seed"], "mean ± std" if spread else "mean"
    seeds = f"{what} of {n} seeds" if n > 1 else "1 seed"
    return ", ".join(part for part in (dataset_name(here), *parts, f"{here['split'].item()} images", seeds) if part)


# ------------------------------------------------------------------------------------------------- clock and word

_CELL = 44
_PALE = 10.0
_X = hv.Dimension("delta_t", label="time step Δt", unit="ms")
_Y = hv.Dimension("bits", label="bits of a weight")
#: Columns of a cell after its corners.
_CELL_COLUMNS = ("value", "std", "runs", "shown", "step", "word", "place", "color")


def plot_clock_and_word(
    deployment: xr.Dataset,
    *,
    quantity: str = "accuracy",
    rule: str | None = None,
    split: str = "test",
    hardware: str = "Loihi",
    updates: str = "event_driven",
    title: str = "",
) -> hv.Overlay | hv.Layout:
    """Plot one quantity for every time step and word length, in numbers and in colour.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`bats_lab.deploy.open_deployment` returns it, of one data set.
    quantity : str
        ``accuracy``, ``spikes``, ``synaptic_events``, ``active_share``, ``energy`` or ``decision_time``.
    rule : str or None
        Collision rule; None: one plot for each.
    split : str
        ``test`` or ``validation`` images.
    hardware, updates : str
        For ``energy``: a row of :data:`bats_lab.energy.HARDWARE`; ``event_driven`` or ``clocked``.
    title : str
        Title above the plots; empty: data set, quantity, images and seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Means over the seeds; the standard deviation stands under the pointer. All plots have one scale of colour.

    Raises
    ------
    ValueError
        If a value is not allowed, the deployment has several data sets, or nothing was measured.
    """
    here = narrowed(deployment, split)
    values, axis = measured(here, quantity, hardware=hardware, updates=updates)
    rules = rules_of(here, rule)
    scale = ColorScale.over(values.sel(rule=rules).mean("seed"), good=QUANTITIES[quantity].large_is_good)
    above = title or _title(here, axis.pprint_label, spread=False)
    if len(rules) == 1:
        above = title or f"{_title(here, f'rule {rules[0]}', spread=False)}\n{axis.pprint_label}"
        return draw_cells(values.sel(rule=rules[0]), axis, scale, title=above)
    plots = [draw_cells(values.sel(rule=name), axis, scale, title=f"rule {name}") for name in rules]
    width, height = _CELL * values.sizes["delta_t"], _row_height(values) * values.sizes["bits"]
    return style.panels(plots, columns=2, title=above, gap=90, width=width, height=height)


@dataclass(frozen=True)
class ColorScale:
    """Which colour a value has: pale to dark, linear or logarithmic.

    Attributes
    ----------
    low, high : float
        Values of the palest and of the darkest colour. Of accuracies, all that are 10 points below the best or more are
        palest, so that a loss of one point can be seen.
    good : bool
        Whether large values are good (blue) and not dear (orange).
    """

    low: float
    high: float
    good: bool

    @classmethod
    def over(cls, values: xr.DataArray, *, good: bool) -> ColorScale:
        """Return the scale for values; what is not finite is passed over."""
        flat = values.values[np.isfinite(values.values)]
        if not flat.size:
            return cls(0.0, 1.0, good)
        low, high = float(flat.min()), float(flat.max())
        return cls(max(low, high - _PALE) if good else low, high, good)

    @property
    def logarithmic(self) -> bool:
        """Whether it is logarithmic, as where values differ by more than a factor of 20."""
        return not self.good and self.low > 0 and self.high / self.low > 20

    def places(self, values: np.ndarray) -> np.ndarray:
        """Return where values are on the scale, from 0 to 1."""
        f = np.log if self.logarithmic else np.asarray
        low, high = float(f(self.low)), float(f(self.high))
        if not high > low:
            return np.full(np.shape(values), 0.5)
        return np.asarray(np.clip((f(values) - low) / (high - low), 0, 1))

    def colors(self, places: np.ndarray) -> list[str]:
        """Return the colours at places."""
        cmap = mpl.colormaps["Blues" if self.good else "Oranges"]
        return [str(mpl.colors.to_hex(cmap(0.05 + 0.8 * place))) for place in places]


def cell_columns(values: xr.DataArray, axis: hv.Dimension, scale: ColorScale) -> dict[str, np.ndarray]:
    """Return what is shown of the cells of one rule: their corners first, then :data:`_CELL_COLUMNS`.

    Parameters
    ----------
    values : DataArray, (seed, delta_t, bits)
        What is drawn; cells without a value are left out.
    axis : holoviews.Dimension
        Its name and unit.
    scale : ColorScale
        Its colours.
    """
    values = values.transpose("delta_t", "bits", "seed").sortby("bits")
    mean, std, runs = statistics(values)
    column, row = np.nonzero(np.isfinite(mean))
    place = scale.places(mean[column, row])
    steps, words = values["delta_t"].values, values["bits"].values
    return {
        "x0": column - 0.5,
        "y0": row - 0.5,
        "x1": column + 0.5,
        "y1": row + 0.5,
        "value": mean[column, row],
        "std": std[column, row],
        "runs": runs[column, row],
        "shown": _texts(mean[column, row], std[column, row], axis.unit),
        "step": np.array([style.delta_t_label(steps[i]) for i in column], dtype=object),
        "word": np.array([word_label(words[i]) for i in row], dtype=object),
        "place": place,
        "color": np.array(scale.colors(place), dtype=object),
    }


def _texts(mean: np.ndarray, std: np.ndarray, unit: str | None) -> np.ndarray:
    """Write values with their standard deviations, where there are any, and their unit."""
    spreads = [f" ± {s:.3g}" if np.isfinite(s) else "" for s in std]
    values = [f"{m:,.0f}" if abs(m) >= 1e4 else f"{m:.4g}" for m in mean]
    return np.array([f"{m}{s} {unit or ''}".rstrip() for m, s in zip(values, spreads, strict=True)], dtype=object)


def cell_texts(columns: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return the numbers in the cells: ``light`` ones on dark cells, and ``dark`` ones."""
    dark_cell = columns["place"] > 0.62
    centre = {"delta_t": columns["x0"] + 0.5, "bits": columns["y0"] + 0.5}
    text = np.array([short(v) for v in columns["value"]], dtype=object)
    return {
        name: {key: v[which] for key, v in (centre | {"text": text}).items()}
        for name, which in (("light", dark_cell), ("dark", ~dark_cell))
    }


def short(value: float) -> str:
    """Write a number with three digits or so, in little room.

    Examples
    --------
    >>> [short(v) for v in (97.54, 0.01234, 927.2, 12345.6, 1.2e6)]
    ['97.5', '0.0123', '927', '12.3k', '1.20M']
    """
    for least, unit, letter in ((1e6, 1e6, "M"), (1e4, 1e3, "k"), (0.0, 1.0, "")):
        if abs(value) >= least:
            return f"{value / unit:#.3g}".rstrip(".") + letter if abs(value) < 1e3 * unit else f"{value:.0f}"
    return ""


def draw_cells(
    values: xr.DataArray,
    axis: hv.Dimension,
    scale: ColorScale,
    *,
    title: str,
    marks: Sequence[Any] = (),
    cell: int = _CELL,
) -> hv.Overlay:
    """Draw the cells of one rule, as elements of the groups ``cells``, ``light`` and ``dark``.

    Parameters
    ----------
    values : DataArray, (seed, delta_t, bits)
        What is drawn.
    axis : holoviews.Dimension
        Its name and unit, for the text under the pointer.
    scale : ColorScale
        Its colours.
    title : str
        Title of the plot.
    marks : sequence of HoloViews elements
        What is drawn above the cells.
    cell : int
        Width of a cell, in pixels of the screen.
    """
    columns = cell_columns(values, axis, scale)
    steps, words = values["delta_t"].values, np.sort(values["bits"].values)
    tooltips = [
        ("Δt", "@step"),
        ("bits", "@word"),
        ("mean ± std over seeds", "@shown"),
        ("seeds", "@runs"),
    ]
    cells = hv.Rectangles(tuple(columns.values()), ["x0", "y0", "x1", "y1"], list(_CELL_COLUMNS), group="cells")
    cells = style.styled(
        cells,
        color="color",
        screen={"line_color": "white", "line_width": 1, "tools": ["hover", "tap"], "hover_tooltips": tooltips}
        | {"nonselection_alpha": 1},
        paper={"edgecolor": "white", "linewidth": 0.8},
    )
    texts = [
        style.text(hv.Labels(tuple(found.values()), [_X, _Y], "text", group=name), color)
        for (name, found), color in zip(cell_texts(columns).items(), ("white", "#333333"), strict=True)
    ]
    ticks = ["0" if step == 0 else style.delta_t_label(step).removesuffix(" ms") for step in steps]
    return style.overlay(
        [cells, *texts, *marks],
        width=cell * len(steps),
        height=_row_height(values) * len(words),
        title=title,
        xlabel=_X.pprint_label,
        ylabel=_Y.pprint_label,
        xticks=list(enumerate(ticks)),
        yticks=[(i, str(word)) for i, word in enumerate(words)],
        xlim=(-0.5, len(steps) - 0.5),
        ylim=(-0.5, len(words) - 0.5),
        grid=False,
    )


def _row_height(values: xr.DataArray) -> int:
    """Return the height of a row of cells, so that a frame of few is not too low for its label."""
    return max(26, 120 // values.sizes["bits"])


# ------------------------------------------------------------------------------------------------- over the time step


def plot_deployment(
    deployment: xr.Dataset,
    *,
    quantity: str | Sequence[str] = "accuracy",
    bits: int | Sequence[int] = _TRAINED,
    rules: Sequence[str] | None = None,
    split: str = "test",
    hardware: str = "Loihi",
    updates: str = "event_driven",
    top: float | None = None,
    title: str = "",
) -> hv.Overlay | hv.Layout:
    """Plot what becomes of the same trained networks over the time step, one curve a collision rule.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`bats_lab.deploy.open_deployment` returns it, of one data set.
    quantity : str or sequence of str
        ``accuracy``, ``spikes``, ``synaptic_events``, ``active_share``, ``energy`` or ``decision_time``; several stand
        beside each other.
    bits : int or sequence of int
        Word length of the weights; several stand beside each other.
    rules : sequence of str or None
        Collision rules; None: all.
    split : str
        ``test`` or ``validation`` images.
    hardware, updates : str
        For ``energy``: a row of :data:`bats_lab.energy.HARDWARE`; ``event_driven`` or ``clocked``.
    top : float or None
        For ``accuracy``: draw it once more, from so many points below the highest value on, so that small losses are
        seen beside a collapse.
    title : str
        Title above the plots; empty: data set, images and seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Mean over seeds with a band of ±1 standard deviation.

    Raises
    ------
    ValueError
        If a value is not allowed, the deployment has several data sets, or nothing was measured.
    """
    every = narrowed(deployment, split)
    shown = [name for given in (rules_of(every) if rules is None else rules) for name in rules_of(every, given)]
    quantities = [quantity] if isinstance(quantity, str) else list(quantity)
    words = [bits] if isinstance(bits, int) else list(bits)
    if not (shown and quantities and words):
        raise ValueError("rules, quantity and bits must each name at least one.")
    wanted = [
        (word, name, reach)
        for word in words
        for name in quantities
        for reach in ((None, top) if name == "accuracy" and top is not None else (None,))
    ]
    plots = []
    for i, (word, name, reach) in enumerate(wanted):
        values, axis = measured(with_word(every, word), name, hardware=hardware, updates=updates)
        values = values.sel(rule=shown)
        both: dict[str, Any] = {} if reach is None else {"ylim": _below(values, reach)}
        plots.append(
            over_delta_t(
                {rule: values.sel(rule=rule).transpose("delta_t", "seed") for rule in shown},
                axis,
                title=_word_text(word) + ("" if reach is None else f", the upper {reach:g} points"),
                show_legend=i == len(wanted) - 1,
                width=_WIDTH,
                height=_HEIGHT,
                **both,
            )
        )
    return style.panels(plots, columns=3, title=title or _title(every), width=_WIDTH, height=_HEIGHT, gap=90)


def _below(values: xr.DataArray, reach: float) -> tuple[float, float]:
    """Return the ends of an axis from so far below the highest value."""
    mean, std, _ = statistics(values)
    highest = float(np.nanmax(mean + np.nan_to_num(std)))
    return style.limits(highest - reach, highest)


def with_word(here: xr.Dataset, bits: int) -> xr.Dataset:
    """Select a word length, and leave out time steps at which nothing was measured."""
    known = here["bits"].values.tolist()
    if bits not in known:
        raise ValueError(f"bits is {bits}; the deployment holds {', '.join(map(str, known))}.")
    here = here.sel(bits=bits)
    measured_at = here["accuracy"].notnull().any([d for d in here["accuracy"].dims if d != "delta_t"]).values
    if not measured_at.any():
        raise ValueError(f"Nothing was measured with {_word_text(bits)}; there is nothing to plot.")
    return here.isel(delta_t=np.flatnonzero(measured_at)).sortby("delta_t")


def _word_text(bits: int) -> str:
    return "weights as trained" if bits == _TRAINED else f"weights of {bits} bits"


def plot_energy(
    deployment: xr.Dataset,
    *,
    hardware: str = "Loihi",
    rule: str | None = None,
    bits: int = _TRAINED,
    split: str = "test",
    title: str = "",
) -> hv.Overlay | hv.Layout:
    """Plot what an inference costs against the time step: neurons updated on events, and on every tick of the clock.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`bats_lab.deploy.open_deployment` returns it, of one data set.
    hardware : str
        A row of :data:`bats_lab.energy.HARDWARE`. Where no joules are published, effective synaptic operations are
        drawn.
    rule : str or None
        Collision rule; None: one plot for each.
    bits : int
        Word length of the weights.
    split : str
        ``test`` or ``validation`` images.
    title : str
        Title above the plots; empty: data set, word length, images and seeds.

    Returns
    -------
    holoviews.Overlay or holoviews.Layout
        Mean over seeds with a band of ±1 standard deviation, on a logarithmic axis. On 45 nm CMOS a line marks the
        multiply-adds of a dense network of the same shape, the only other thing that is known there.

    Raises
    ------
    ValueError
        If a value is not allowed, the deployment has several data sets, or nothing was measured.

    Notes
    -----
    The two curves cross where there are as many synaptic events as (neuron, tick) pairs; see
    :func:`bats_lab.energy.energy`.
    """
    here = with_word(narrowed(deployment, split), bits)
    costs = deployment_costs(here, hardware={hardware: hardware_of(hardware)})
    both, axis = energies(here, hardware, costs)
    rules = rules_of(here, rule)
    marks, levels = [], [both[name].sel(rule=rules).values for name in UPDATES]
    if hardware == _CMOS:
        dense = 1e6 * float(costs["dense"].mean())
        marks = _dense_line(dense, here["delta_t"].values, axis)
        levels.append(np.array([dense]))
    alone, limits = len(rules) == 1, log_limits(*levels)
    above = title or _title(here, hardware, _word_text(bits))
    axis = axis.clone(label=axis.label.removesuffix(f", {hardware}"))
    plots = [
        over_delta_t(
            {text: both[name].sel(rule=each).transpose("delta_t", "seed") for name, text in UPDATES.items()},
            axis,
            title=f"{above}\nrule {each}" if alone else f"rule {each}",
            legend_title="updates",
            show_legend=i == min(2, len(rules) - 1),  # in the first row
            marks=marks,
            logy=True,
            ylim=limits,
            yticks=log_ticks(*limits),
            **({} if alone else {"width": 240, "height": 220}),
        )
        for i, each in enumerate(rules)
    ]
    return plots[0] if alone else style.panels(plots, columns=3, title=above, width=240, height=220, gap=90)


def _dense_line(dense: float, steps: np.ndarray, axis: hv.Dimension) -> list[Any]:
    """Draw the level of the dense network and what it is."""
    ends = style.DeltaTAxis.over(steps).limits
    x, y = hv.Dimension("delta_t", label=_X.label, unit="ms"), hv.Dimension("level")
    level = style.line(hv.Curve((ends, (dense, dense)), x, y), style.ACCENT_COLOR, series=1, width=0.7)
    words = hv.Labels(
        ([math.sqrt(ends[0] * ends[1])], [dense * 1.06], [f"dense network: {short(dense)} µJ"]), [x, y], "text"
    )
    words = style.text(words, style.ACCENT_COLOR)
    return [level, style.styled(words, screen={"text_baseline": "bottom"}, paper={"verticalalignment": "bottom"})]


def log_limits(*values: np.ndarray) -> tuple[float, float]:
    """Return ends of a logarithmic axis with some room."""
    flat = np.concatenate([np.ravel(v) for v in values])
    flat = flat[np.isfinite(flat) & (flat > 0)]
    if not flat.size:
        return (0.1, 10.0)
    low, high = float(flat.min()), float(flat.max())
    room = max(0.1 * math.log10(high / low), 0.05)
    return (low / 10**room, high * 10 ** (1.5 * room))  # on top there may be a text


def log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return ticks at 1, 2 and 5 of each decade; at more places where there are few of them, at 1 where many.

    Ends less than a factor of three apart have ticks at equal distances.

    Examples
    --------
    >>> log_ticks(0.3, 12)
    [(0.5, '0.5'), (1.0, '1'), (2.0, '2'), (5.0, '5'), (10.0, '10')]
    >>> log_ticks(9e4, 4e5)[0]
    (100000.0, '100k')
    """
    span = high / low
    steps = ("1", "1.5", "2", "3", "4", "6", "8") if span < 10 else ("1", "2", "5") if span < 3e3 else ("1",)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [float(f"{m}e{decade}") for decade in decades for m in steps]
    if span < 3:
        places = [float(f"{v:.6g}") for v in MaxNLocator(4).tick_values(low, high)]
    units = ((1e6, "M"), (1e4, "k"), (0.0, ""))
    found = []
    for place in (v for v in places if low <= v <= high):
        letter = next(letter for least, letter in units if place >= least)
        found.append((place, f"{place / {'M': 1e6, 'k': 1e3, '': 1.0}[letter]:g}{letter}"))
    return found


# ------------------------------------------------------------------------------------------------- the share of pairs


def plot_active_share(
    dataset: xr.Dataset,
    *,
    delta_t: tuple[float, float] = (0.002, 0.01),
    sample: int = 0,
    layer: str = "hidden_1",
    neurons: int = 12,
    title: str = "",
) -> hv.Layout:
    """Plot why the share of active (neuron, tick) pairs cannot compare clocks: the very same spikes on two of them.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many, as :func:`bats_lab.open_results` gives them, some of which kept spikes.
    delta_t : (float, float)
        A fine and a coarse time step in seconds.
    sample : int
        Which of the kept samples.
    layer : str
        Layer whose spikes are drawn.
    neurons : int
        How many of its neurons: the first that spike.
    title : str
        Title above the plots.

    Returns
    -------
    holoviews.Layout
        Above, the spikes as computed, with the cells of either clock in which there is one; below, the share of such
        cells and the number of spikes for the very same spikes over all time steps.

    Raises
    ------
    ValueError
        If no run kept spikes of this layer and sample, or a value is not allowed.
    """
    times, duration = kept_times(dataset, sample=sample, layer=layer)
    times = times[np.isfinite(times).any(axis=1)][:neurons]
    if not len(times):
        raise ValueError(f"No neuron of {layer} spiked on sample {sample}; there is nothing to plot.")
    return draw_active_share(times, delta_t, duration, title=title)


def kept_times(dataset: xr.Dataset, *, sample: int, layer: str) -> tuple[np.ndarray, float]:
    """Return the times (neuron, spike) at which a layer's neurons crossed on a kept sample, and the window, in s.

    Of the runs that kept spikes the first of the smallest time step is taken.
    """
    import json

    missing = [name for name in ("spike_times", "sample_label", "config") if name not in dataset]
    if missing:
        raise ValueError(f"The results have no variable {missing[0]!r}, which runs keep with keep_samples above 0.")
    dims = [str(d) for d in dataset["config"].dims]
    known = (dataset["sample_label"] != "").any("sample")
    runs = np.argwhere(known.transpose(*dims).values)
    if not len(runs):
        raise ValueError("None of these runs kept spikes; runs keep them with keep_samples above 0.")
    steps = dataset["delta_t"].values.reshape(-1)
    finest = min(runs, key=lambda run: steps[run[dims.index("delta_t")]] if "delta_t" in dims else 0.0)
    run = dataset.isel(dict(zip(dims, map(int, finest), strict=True)))
    for name, value in (("sample", sample), ("layer", layer)):
        labels = run[name].values.tolist()
        if value not in labels:
            raise ValueError(f"{name} is {value!r}; the results hold {', '.join(map(str, labels))}.")
    kept = run["spike_times"].sel(sample=sample, layer=layer).transpose("neuron", "spike")
    return kept.values.astype(float), float(json.loads(str(run["config"].values))["duration"])


#: Time steps over which the share of the same spikes is drawn, in s; all divide the usual window of 0.2 s.
_SHARE_STEPS = (0.0005, 0.001, 0.002, 0.004, 0.005, 0.008, 0.01, 0.02)


def draw_active_share(
    times: np.ndarray, delta_t: tuple[float, float], duration: float, *, title: str = ""
) -> hv.Layout:
    """Do what :func:`plot_active_share` does for given spikes.

    Parameters
    ----------
    times : ndarray, (neuron, spike)
        Spike times in seconds; not finite where there is none.
    delta_t : (float, float)
        A fine and a coarse time step in seconds.
    duration : float
        Length of the window in seconds.
    title : str
        Title above the plots.
    """
    if not 0 < delta_t[0] < delta_t[1] <= duration:
        raise ValueError(f"delta_t is {delta_t}; it must be a fine and a coarse time step, above 0 and in the window.")
    plots: list[Any] = [_grid_of_cells(times, step, duration) for step in delta_t]
    n_neurons, n_spikes = len(times), int(np.isfinite(times).sum())
    steps = sorted({*delta_t, *(s for s in _SHARE_STEPS if s <= duration / 4)})
    share = [100 * float(active_share(n_spikes, n_neurons, duration, step)) for step in steps]
    constant = [float(n_spikes)] * len(steps)
    for name, label, unit, values in (
        ("share", "active (neuron, tick) pairs", "%", share),
        ("spikes", "spikes", "", constant),
    ):
        y = hv.Dimension(name, label=label, unit=unit or None)
        one = xr.DataArray(np.array(values)[:, None], {"delta_t": steps, "seed": [0]}, ("delta_t", "seed"))
        plots.append(
            over_delta_t(
                {"": one},
                y,
                title="the same spikes: " + ("the share moves" if name == "share" else "their number does not"),
                width=_SHARE_WIDTH,
                height=_SHARE_HEIGHT,
                ylim=style.limits(0, *values),
            )
        )
    return style.panels(plots, columns=2, title=title, width=_SHARE_WIDTH, height=_SHARE_HEIGHT, gap=95)


_SHARE_WIDTH, _SHARE_HEIGHT = 470, 200
#: Up to so many neurons each has its tick.
_NAMED = 12


def _grid_of_cells(times: np.ndarray, step: float, duration: float) -> hv.Overlay:
    """Draw the cells in which a neuron spikes, and its spikes within them."""
    x, y = hv.Dimension("time", label="time", unit="ms"), hv.Dimension("neuron", label="neuron")
    neuron, spike = np.nonzero(np.isfinite(times))
    at = times[neuron, spike]
    # The tick on which it is sent ends the cell in which it was computed.
    tick = np.rint(discretize(at, step) / step).astype(int)
    cells, counts = np.unique(np.stack([neuron, tick], axis=1), axis=0, return_counts=True)
    start, end = 1e3 * step * (cells[:, 1] - 1), 1e3 * step * cells[:, 1]
    color = style.delta_t_color(step)
    filled = hv.Rectangles(
        (start, cells[:, 0] - 0.45, end, cells[:, 0] + 0.45, counts), vdims=["spikes"], group="cells"
    )
    tooltips = [("spikes in this cell", "@spikes")]
    filled = style.styled(
        filled,
        color=color,
        alpha=0.45,
        screen={"line_color": None, "tools": ["hover"], "hover_tooltips": tooltips},
        paper={"linewidth": 0},
    )
    spikes = style.points(hv.Scatter((1e3 * at, neuron), x, y, group="spikes"), style.CONTINUOUS_COLOR, size=0.45)
    n_ticks = math.floor(duration / step + 1e-6)
    share = 100 * float(active_share(len(at), len(times), duration, step))
    title = (
        f"Δt = {style.delta_t_label(step)}: {len(at)} spikes on {len(times)} × {n_ticks:,} (neuron, tick) pairs, "
        f"share {share:.3g} %"
    )
    return style.overlay(
        [filled, spikes],
        width=_SHARE_WIDTH,
        height=_SHARE_HEIGHT,
        title=title,
        xlabel=x.pprint_label,
        ylabel=y.pprint_label,
        xlim=(0, 1e3 * duration),
        ylim=(-0.8, len(times) - 0.2),
        yticks=[(i, str(i + 1)) for i in range(len(times))] if len(times) <= _NAMED else [(0, "1")],
    )


# ------------------------------------------------------------------------------------------------- three objectives

_POINT_COLUMNS = (
    *("accuracy", "std", "test", "decision_time", "shown", "cost", "step", "word", "rule", "color"),
    "point",
)
#: Colours of decision times: early is dark. Not the scale of time steps.
_TIME_COLORS, _TIME_END = "plasma", 0.88


def plot_three_way(
    deployment: xr.Dataset,
    *,
    hardware: str = "Loihi",
    updates: str = "event_driven",
    split: str = "test",
    top: float = 10.0,
    title: str = "",
) -> hv.Overlay:
    """Plot accuracy, energy and time to decision of every clock, word length and rule, and which of them nothing beats.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`bats_lab.deploy.open_deployment` returns it, of one data set.
    hardware, updates : str
        A row of :data:`bats_lab.energy.HARDWARE`; ``event_driven`` or ``clocked``. Where no joules are published,
        effective synaptic operations are drawn.
    split : str
        ``test`` or ``validation`` images.
    top : float
        How many points of accuracy below the best the axis reaches; the title tells how many points are below it.
    title : str
        Title; empty: data set, images and seeds.

    Returns
    -------
    holoviews.Overlay
        One point a time step, word length and rule, mean over seeds: energy (logarithmic) against accuracy, colour for
        the time to decision, marker for the rule. Ringed are the points of the Pareto front of the three, with bars of
        ±1 standard deviation of accuracy. Continuous time, which no clock has, is drawn but does not compete.

    Raises
    ------
    ValueError
        If a value is not allowed, the deployment has several data sets, or nothing was measured.
    """
    here = narrowed(deployment)
    check_choice("split", split, tuple(map(str, here["split"].values)))
    table, axis = three_way_table(here, hardware=hardware, updates=updates, split=split)
    if not len(table["energy"]):
        raise ValueError("No point has an accuracy, an energy and a time to decision; there is nothing to plot.")
    above = title or "\n".join([_title(here.sel(split=split)), three_way_note(table, top)])
    return draw_three_way(table, axis, title=above, split=split, top=top)


def three_way_table(
    here: xr.Dataset, *, hardware: str, updates: str, split: str, costs: xr.Dataset | None = None
) -> tuple[dict[str, np.ndarray], hv.Dimension]:
    """List the points: energy, accuracy (%) with its standard deviation, time to decision (ms), and what they are.

    Returns
    -------
    dict of str to ndarray, (point,)
        ``energy``, :data:`_POINT_COLUMNS`, and ``delta_t``, ``bits`` and ``front``: whether no other point beats it.
    holoviews.Dimension
        The axis of energy.
    """
    energy, axis = measured(here, "energy", hardware=hardware, updates=updates, costs=costs)
    accuracy = 100 * here["accuracy"]
    columns = xr.Dataset(
        {
            "energy": energy.sel(split=split, drop=True).mean("seed"),
            "accuracy": accuracy.sel(split=split, drop=True).mean("seed"),
            "std": accuracy.sel(split=split, drop=True).std("seed", ddof=1) if here.sizes["seed"] > 1 else math.nan,
            "test": accuracy.sel(split="test" if "test" in here["split"].values else split, drop=True).mean("seed"),
            "decision_time": 1e3 * here["decision_time"].sel(split=split, drop=True).mean("seed"),
        }
    ).reset_coords(drop=True)
    columns = columns.broadcast_like(columns["accuracy"])
    flat = columns.sel(rule=rules_of(here)).stack(point=("rule", "delta_t", "bits"))
    known = np.isfinite([flat[name].values for name in ("energy", "accuracy", "decision_time")]).all(axis=0)
    # In continuous time all rules are one: the first stands for all.
    exact = flat["delta_t"].values == 0
    known &= ~exact | (flat["rule"].values == flat["rule"].values[exact][0] if exact.any() else False)
    flat = flat.isel(point=np.flatnonzero(known))
    table: dict[str, np.ndarray] = {str(name): flat[name].values for name in columns.data_vars}
    table |= {name: flat[name].values for name in ("rule", "delta_t", "bits")}
    clock = table["delta_t"] > 0
    front = np.zeros(len(clock), bool)
    on_clock = np.flatnonzero(clock)
    cost = np.stack([table["energy"], table["decision_time"]], axis=1)[on_clock]
    front[on_clock[pareto_front(cost, table["accuracy"][on_clock])]] = True
    low, high = _ends(table["decision_time"])
    colors = _time_colors((table["decision_time"] - low) / (high - low))
    shown = _texts(table["accuracy"], table["std"], f"% of {split} images")
    return table | {
        "front": front,
        "shown": shown,
        "cost": _texts(table["energy"], np.full(len(front), np.nan), axis.unit or "effective operations"),
        "step": np.array([style.delta_t_label(v) for v in table["delta_t"]], dtype=object),
        "word": np.array([word_label(v) for v in table["bits"]], dtype=object),
        "color": colors,
        "point": np.arange(len(front)),
    }, axis


def point_columns(table: dict[str, np.ndarray], which: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of some points."""
    return {name: table[name][which] for name in ("energy", *_POINT_COLUMNS)}


def series_of(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return which points belong to each series: one for each rule, and continuous time."""
    clock = table["delta_t"] > 0
    return {rule: clock & (table["rule"] == rule) for rule in RULES} | {"continuous time": ~clock}


def three_way_note(table: dict[str, np.ndarray], top: float) -> str:
    """Tell how many points there are, on the front and below the axis."""
    below = int((table["accuracy"] < table["accuracy"].max() - top).sum())
    told = f"{len(table['front'])} points, {table['front'].sum()} on the front of accuracy, energy and time"
    return f"{told}; {below} below the axis" if below else told


def three_way_limits(table: dict[str, np.ndarray], top: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of both axes."""
    best = float(table["accuracy"].max())
    lowest = max(best - top, float(table["accuracy"].min()))
    return log_limits(table["energy"]), style.limits(lowest, best + _PALE / 20)


def time_legend(table: dict[str, np.ndarray]) -> list[tuple[float, str]]:
    """Return four decision times (ms) and their colours, from the earliest to the latest."""
    places = np.linspace(0, 1, 4)
    low, high = _ends(table["decision_time"])
    return list(zip((low + places * (high - low)).tolist(), _time_colors(places), strict=True))


def _ends(times: np.ndarray) -> tuple[float, float]:
    """Return the ends of the scale of decision times, at least 3 ms apart."""
    low = float(times.min()) if times.size else 0.0
    return low, max(float(times.max()) if times.size else 0.0, low + 3)


def _time_colors(places: np.ndarray) -> np.ndarray:
    cmap = mpl.colormaps[_TIME_COLORS]
    return np.array([str(mpl.colors.to_hex(cmap(_TIME_END * place))) for place in places], dtype=object)


def draw_three_way(
    table: dict[str, np.ndarray],
    axis: hv.Dimension,
    *,
    title: str,
    split: str,
    top: float = 10.0,
    marks: Sequence[Any] = (),
    every_rule: bool = False,
    **both: Any,
) -> hv.Overlay:
    """Draw the points of :func:`three_way_table`.

    Parameters
    ----------
    table : dict of str to ndarray, (point,)
        The points; groups are ``rule <rule>`` and ``rule continuous time``, ``front`` and ``spread``.
    axis : holoviews.Dimension
        The axis of energy.
    title : str
        Title of the plot.
    split : str
        On which images.
    top : float
        How many points of accuracy below the best the axis reaches.
    marks : sequence of HoloViews elements
        What is drawn above the points.
    every_rule : bool
        Whether rules without a point are there too: an explorer fills them later.
    **both
        Options of the overlay.
    """
    y = hv.Dimension("accuracy", label=f"{split} accuracy", unit="%")
    tooltips = [
        ("Δt", "@step"),
        ("bits", "@word"),
        ("rule", "@rule"),
        ("accuracy, mean ± std", "@shown"),
        ("test accuracy", "@test{0.00} %"),
        ("energy", "@cost"),
        ("time to decision", "@decision_time{0.0} ms"),
    ]
    elements, legend = [], []
    for i, (name, which) in enumerate(series_of(table).items()):
        if not (which.any() or every_rule):
            continue
        exact = name == "continuous time"
        columns = point_columns(table, which)
        scatter = hv.Scatter(columns, axis, [y, *_POINT_COLUMNS[1:]], group=f"rule {name}")
        color = style.CONTINUOUS_COLOR if exact else "color"
        scatter = style.points(scatter, color, series=0 if exact else i, size=1.1, tooltips=tooltips)
        elements.append(style.styled(scatter, screen={"tools": ["hover", "tap"], "nonselection_alpha": 1}, paper={}))
        entry_color = style.CONTINUOUS_COLOR if exact else style.NEUTRAL_COLOR
        legend.append(style.LegendEntry(name, entry_color, marker=0 if exact else i))
    legend += [style.LegendEntry(f"{t:.0f} ms", color, marker=0) for t, color in time_legend(table)]
    for i, entry in enumerate(legend):
        nowhere = hv.Scatter(([np.nan], [np.nan]), axis, y, label=entry.label, group=f"legend {i}")
        elements.append(style.points(nowhere, entry.color, series=entry.marker or 0, size=1.1))
    legend.append(_Ring("Pareto front", style.ACCENT_COLOR, marker=0))
    elements += _front(table, axis, y)
    x_limits, y_limits = three_way_limits(table, top)
    options: dict[str, Any] = {
        "width": 560,
        "height": 400,
        "xlim": x_limits,
        "ylim": y_limits,
        "logx": True,
        "xticks": log_ticks(*x_limits),
    }
    return style.overlay(
        [*elements, *marks],
        legend=legend,
        legend_title="rule, time to decision",
        title=title,
        xlabel=axis.pprint_label,
        ylabel=y.pprint_label,
        **options | both,
    )


def front_columns(table: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the rings of the front, and the lines of ±1 standard deviation through them."""
    front = table["front"]
    x, y, std = table["energy"][front], table["accuracy"][front], np.nan_to_num(table["std"][front])
    return {"energy": x, "accuracy": y}, {"x0": x, "y0": y - std, "x1": x, "y1": y + std}


def _front(table: dict[str, np.ndarray], x: hv.Dimension, y: hv.Dimension) -> list[Any]:
    rings, spread = front_columns(table)
    lines = hv.Segments(tuple(spread.values()), ["x0", "y0", "x1", "y1"], group="spread")
    lines = style.styled(
        lines, color=style.ACCENT_COLOR, alpha=0.35, screen={"line_width": 1}, paper={"linewidth": 0.8}
    )
    return [lines, ring(hv.Scatter(tuple(rings.values()), x, y, group="front", label="Pareto front"), size=11)]


class _Ring(style.LegendEntry):
    """A legend's entry that is hollow."""

    def handle(self) -> mpl.lines.Line2D:
        drawn = super().handle()
        drawn.set(markerfacecolor="none", markeredgecolor=self.color, markersize=7, markeredgewidth=1.2)
        return drawn


def ring(scatter: hv.Scatter, *, size: int, color: str = style.ACCENT_COLOR) -> hv.Scatter:
    """Style points as rings."""
    return style.styled(
        scatter,
        screen={"size": size, "fill_color": None, "line_color": color, "line_width": 1.2},
        paper={"s": size**2 / 2.2, "facecolors": "none", "edgecolors": color},
    )
