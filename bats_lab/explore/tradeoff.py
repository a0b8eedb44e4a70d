"""What accuracy costs: runs in the plane of accuracy against spikes, events or time, and what is behind a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import holoviews as hv
import ipywidgets
import numpy as np
import xarray as xr

from bats_lab.explore.picture import Picture
from bats_lab.explore.rasters import show_raster
from bats_lab.explore.widgets import (
    EXPECTED,
    Explorer,
    Sentence,
    choice,
    if_several,
    in_room,
    in_words,
    parts_of,
    several,
    side_by_side,
)
from bats_lab.network.feedforward import Network
from bats_lab.plots import style
from bats_lab.plots.measures import MEASURES
from bats_lab.plots.raster import RasterLayer, kept_rasters, raster_plots
from bats_lab.plots.runs import check_choice, run_title
from bats_lab.plots.tradeoff import (
    COSTS,
    axes_of,
    draw_tradeoff,
    front_of,
    hypervolume_text,
    point_columns,
    run_tooltips,
    tradeoff_table,
)
from bats_lab.plots.weights import color_limit, layer_image
from bats_lab.runs.experiment import config_of
from bats_lab.runs.kept import single_runs
from bats_lab.runs.metrics import RUN_DIMS, VARIABLES
from bats_lab.runs.results import load_large

__all__ = ["explore_tradeoff"]

#: What is needed of a run to show it; every variable more takes its time.
_SMALL = ("path", "accuracy", "spike_count", "layer_size", "confusion", "sample_label", "sample_prediction")
#: Time step, rule, seed and trial (-1: of no search) of a run.
_Key = tuple[float, str, int, int]

#: What of the plane is seen.
_SCALES = {"learned": "runs that learned", "all": "all runs", "error": "error, logarithmic"}
_PRESETS: dict[str, dict[str, Any]] = {
    "the cliff at 8 ms": {"scale": "error", "rule": ["drop"]},
    "graded alone": {"scale": "learned", "rule": ["graded"]},
    "who decides first": {"cost": "decision_time"},
}
_SPIKES = (
    "spike_times", "sent_times", "input_times", "input_sent_times", "input_trains", "input_sent_trains",
)  # fmt: skip


@in_words
def explore_tradeoff(
    results: xr.Dataset | str | Path, *, cost: str = "spike_count", scale: str = "learned"
) -> Explorer:
    """Explore accuracy against what it costs: choose runs, see the Pareto front follow, and look behind a point.

    Parameters
    ----------
    results
        As in all explorers (:mod:`bats_lab.explore`).
    cost : str
        Cost shown first: ``spike_count``, ``synaptic_events``, ``decision_time`` or ``first_spike_time``.
    scale : str
        What is seen first: ``learned``, the runs that learned, with those that failed counted at the edge; ``all``;
        or ``error``, all over a logarithmic axis of the error.

    Returns
    -------
    Explorer
        With the controls `cost`, `scale`, `delta_t`, `rule` and `seed` (of which several values can be chosen), `run`,
        and `part` where there are several data sets. A click on a point chooses its run. The button `save` writes the
        runs chosen as CSV and NetCDF (:func:`save_selection`).
    """
    check_choice("scale", scale, tuple(_SCALES))
    parts = parts_of(results, keep=["trial"])
    tables = {name: {c: _table(part, c) for c in COSTS} for name, part in parts.items()}
    runs = {name: {_key(run): run for run in single_runs(part)} for name, part in parts.items()}
    kept = {name: {key: sum(_kept(run).values()) for key, run in own.items()} for name, own in runs.items()}
    first = next(iter(parts))
    if not len(tables[first][cost]["cost"]):
        raise ValueError("No run has an accuracy and a cost; there is nothing to explore.")
    steps, rules, seeds = (
        list(dict.fromkeys(value for t in tables.values() for value in t[cost][name].tolist()))
        for name in ("delta_t", "rule", "seed")
    )

    plane = Picture([_plane(tables, cost, width=420, height=380)])
    panel = plane.panels[0]
    detail = _Detail()
    run_choice = choice("run", [("", None)])
    rows = [
        {
            **if_several("part", "data set", list(parts)),
            "cost": choice("cost", [(MEASURES[c].label.removesuffix(" per sample"), c) for c in COSTS], cost),
            "scale": choice("shown", [(text, name) for name, text in _SCALES.items()], scale),
            "run": run_choice,
        },
        {
            "delta_t": several("Δt", [(style.delta_t_label(v), v) for v in sorted(steps)]),
            "rule": several("rule", [(r, r) for r in rules]),
            "seed": several("seed", [(str(s), s) for s in sorted(seeds)]),
        },
    ]

    def chosen(delta_t: Sequence[float], rule: Sequence[str], seed: Sequence[int], part: str, cost: str) -> Any:
        table = tables[part][cost]
        which = np.isin(table["delta_t"], delta_t) & np.isin(table["rule"], rule) & np.isin(table["seed"], seed)
        return table, which

    def draw(
        cost: str,
        scale: str,
        delta_t: Sequence[float],
        rule: Sequence[str],
        seed: Sequence[int],
        run: _Key | None,
        part: str = first,
    ) -> str:
        table, which = chosen(delta_t, rule, seed, part, cost)
        selected = {name: values[which] for name, values in table.items()}
        failed = have_failed(table["accuracy"]) & (scale == "learned")
        view = _View(selected["cost"][~failed[which]], selected["accuracy"][~failed[which]], scale, failed[which].sum())
        x, y = view.place(table["cost"], table["accuracy"], failed & which)
        placed = table | {"cost": x, "accuracy": y}
        for name in rules:
            panel.set(f"rule {name}", point_columns(placed, which & ~failed & (table["rule"] == name)))
        panel.set("failed", point_columns(placed, which & failed))
        corners, share, worst = front_of(selected, cost)
        panel.set("front", dict(zip(("cost", "accuracy"), view.place(*corners), strict=True)))
        panel.labels(x=axes_of(cost)[0].pprint_label, y=view.label)
        panel.x_limits(*view.x_limits)
        panel.y_limits(*view.y_limits)
        panel.y_ticks(view.ticks)
        count = f"{which.sum()} of {len(which)} runs are chosen"
        if view.n_failed:
            low, high = (f"{f(table['accuracy'][which & failed]):.0f}" for f in (np.min, np.max))
            span = low if low == high else f"{low} to {high}"
            count += f"; ▽ {view.n_failed} failed ({span} %) and stand at the edge"
        panel.title(f"{count}\n{hypervolume_text(share, worst, cost) if which.any() else ' '}")
        keys = [_row_key(selected, int(i)) for i in np.argsort(-selected["accuracy"], kind="stable")]
        if [k for _, k in run_choice.options] != keys:
            run_choice.options = [(_label(k), k) for k in keys] or [("none", None)]
            # The best of those behind which there is most to see: of equals, max takes the first.
            best = max(keys, key=lambda k: kept[part].get(k, 0), default=None)
            run_choice.value = run if run in keys else best
        key = run_choice.value
        row = [i for i in range(len(table["cost"])) if _row_key(table, i) == key]
        panel.set("chosen", {"cost": x[row], "accuracy": y[row]})
        return detail.draw(runs[part].get(key) if key is not None else None)

    def body() -> Any:
        behind = ipywidgets.VBox([detail.heading, detail.rasters.widget, detail.weights.widget])
        return side_by_side([in_room(plane.widget, width=560), in_room(behind, width=560)], align_items="flex-start")

    buttons = {"save": "save these runs (CSV, NetCDF)"}
    explorer = Explorer(
        rows, draw, [plane, detail.rasters, detail.weights], body=body, buttons=buttons, presets=_PRESETS
    )

    def save(_: Any) -> None:
        values: dict[str, Any] = {name: explorer.values[name] for name in ("delta_t", "rule", "seed", "cost")}
        part = explorer.values.get("part", first)
        table, which = chosen(**values, part=part)
        try:
            paths = save_selection(parts[part], table, which)
            explorer.sentence.tell(f"Saved {which.sum()} runs as {paths[0]} and {paths[1]}.")
        except EXPECTED as error:
            explorer.sentence.tell(str(error))

    def show(point: dict[str, Any]) -> None:
        table = tables[explorer.values.get("part", first)][explorer.values["cost"]]
        run_choice.value = _row_key(table, int(point["run"]))

    explorer.buttons["save"].on_click(save)
    for name in ("failed", *(f"rule {rule}" for rule in rules)):
        panel.on_click(name, show)
    return explorer


def _table(part: xr.Dataset, cost: str) -> dict[str, np.ndarray]:
    """List the runs of which the cost is known: none where nobody knows it."""
    try:
        return tradeoff_table(part, cost)
    except ValueError:
        texts = ("rule", "file", "step", "color", "drawn")
        names = ("cost", "accuracy", "delta_t", "seed", "trial", "run", "right", "spent")
        return {name: np.empty(0, dtype=str if name in texts else float) for name in (*names, *texts)}


def _key(run: xr.Dataset) -> _Key:
    config = config_of(run)
    return (config.delta_t, config.rule, config.seed, int(run["trial"]) if "trial" in run.coords else -1)


def _row_key(table: dict[str, np.ndarray], row: int) -> _Key:
    return (float(table["delta_t"][row]), str(table["rule"][row]), int(table["seed"][row]), int(table["trial"][row]))


def _label(key: _Key) -> str:
    trial = f", trial {key[3]}" if key[3] >= 0 else ""
    return f"{style.delta_t_label(key[0])}, {key[1]}, seed {key[2]}{trial}"


def _plane(tables: dict[str, dict[str, dict[str, np.ndarray]]], cost: str, **size: Any) -> Any:
    """Draw the plane with every rule and time step that there is in any part, so that each has its marker."""
    several = [t[cost] for t in tables.values()]
    together = {name: np.concatenate([t[name] for t in several]) for name in several[0]}
    x, y = axes_of(cost)
    nowhere = hv.Scatter({"cost": [np.nan], "accuracy": [np.nan]}, x, y, group="chosen")
    ring = style.styled(style.ring(nowhere, size=16), screen={"line_width": 2})
    columns = point_columns(together, np.ones(len(together["run"]), bool))
    failed = hv.Scatter(columns, x, [y, *list(columns)[2:]], group="failed")
    failed = style.points(failed, "color", size=1.6, tooltips=run_tooltips(together, x, y))
    looks: dict[str, Any] = {"marker": "inverted_triangle", "tools": ["hover", "tap"], "nonselection_alpha": 1}
    failed = style.styled(failed, screen=looks)
    return draw_tradeoff(together, cost, whole_title=" ", marks=[failed, ring], **size)


def have_failed(accuracy: np.ndarray) -> np.ndarray:
    """Say which runs have failed: their error is twice that of the best and 5 percentage points above it at least.

    Examples
    --------
    >>> have_failed(np.array([97.0, 93.0, 72.0])).tolist(), have_failed(np.array([60.0, 30.0])).tolist()
    ([False, False, True], [False, False])
    """
    if not len(accuracy):
        return np.zeros(0, bool)
    best = accuracy.max()
    return np.asarray(accuracy < best - max(5.0, 100.0 - best))


class _View:
    """What of the plane is seen: its axes, and where runs stand in it."""

    def __init__(self, cost: np.ndarray, accuracy: np.ndarray, scale: str, n_failed: int) -> None:
        self.logarithmic, self.n_failed = scale == "error", int(n_failed)
        self.label = "test error (%)" if self.logarithmic else "test accuracy (%)"
        self.x_limits = style.limits(cost, narrowest=0.1)
        low, high = style.limits(self._height(accuracy), narrowest=0.002)
        # Below the others there is a shelf for those that failed.
        self._shelf = low - 0.06 * (high - low)
        self.y_limits = (low - 0.12 * (high - low), high) if n_failed else (low, high)
        self.ticks = None
        if self.logarithmic and len(accuracy):
            self.ticks = [(-math.log10(error), text) for error, text in style.log_ticks(10**-high, 10**-low)]

    def _height(self, accuracy: np.ndarray) -> np.ndarray:
        # Of a run without any error the error would have no place.
        return -np.log10(np.maximum(100.0 - accuracy, 0.01)) if self.logarithmic else accuracy

    def place(self, cost: np.ndarray, accuracy: np.ndarray, failed: np.ndarray | None = None) -> tuple[Any, Any]:
        """Return x and y of runs; those that failed stand on the shelf, at the right, the dearest last."""
        x, y = cost.astype(float), np.array(self._height(accuracy), float)
        if failed is not None and failed.any():
            order = np.flatnonzero(failed)[np.argsort(cost[failed], kind="stable")]
            left, right = self.x_limits
            gap = (right - left) * min(0.03, 0.96 / len(order))
            x[order] = right - gap * (np.arange(len(order))[::-1] + 0.7)
            y[order] = self._shelf
        return x, y


def _kept(run: xr.Dataset) -> dict[str, bool]:
    """Return whether a run kept spikes and weights."""
    config = config_of(run)
    return {
        "spikes": "spike_times" in run and config.keep_samples > 0,
        "weights": "weights" in run and config.keep_weights != "none",
    }


class _Detail:
    """What is behind a point: the spikes that its run kept of one sample, and the weights of its first layer."""

    def __init__(self) -> None:
        # Of usual sizes, from which the size of the points follows.
        sizes = {"input": 784, "hidden layer": 800, "output layer": 10}
        empty = {name: np.full((n, 1), np.nan) for name, n in sizes.items()}
        labels = {"output layer": tuple("0123456789")}
        layers = [RasterLayer(name, none, none, labels.get(name, ())) for name, none in empty.items()]
        options: dict[str, Any] = {"window": (0.0, 0.2), "complete": True, "width": 420, "height": 110}
        self.rasters = Picture(raster_plots(layers, 0.004, **options), share_x=True, share=0.62)
        self.weights = Picture([layer_image(np.zeros((2, 2)), 1.0, " ", width=420, height=220)], share=0.38)
        self.heading = Sentence()
        self._shown: Any = None
        self._missing = ""

    def draw(self, run: xr.Dataset | None) -> str:
        """Show a run, or nothing; return what is missing of it."""
        if run is None or run is not self._shown:
            self._shown, self._missing = run, self._draw(run)
        return self._missing

    def _draw(self, run: xr.Dataset | None) -> str:
        if run is None:
            for picture in (self.rasters, self.weights):
                picture.show(False)
            self.heading.tell("")
            return ""
        config, kept = config_of(run), _kept(run)
        spikes, weights = kept["spikes"], kept["weights"]
        self.rasters.show(spikes)
        self.weights.show(weights)
        wanted = [*(_SPIKES if spikes else ()), *(["weights"] if weights else ())]
        names = [name for name in (*_SMALL, *wanted) if name in run]
        first = {"weights": {"layer": 0}} if weights else {}
        loaded = load_large(run[names], *(name for name in _SPIKES if name in names), **first)
        loaded = loaded.squeeze([d for d in RUN_DIMS if d in loaded.dims])
        self.heading.tell(f"{run_title(run)}: {self._what(loaded, spikes)}")
        if spikes:
            rasters = kept_rasters(loaded, int(loaded["sample"].values[0]))
            # Of networks of more layers: input, first hidden and output layer.
            for panel, raster in zip(self.rasters.panels, [*rasters[:2], rasters[-1]], strict=True):
                panel.title(raster.name)
                show_raster(panel, raster, config.delta_t, (0.0, config.duration))
        if weights:
            values = loaded["weights"].transpose("post", "pre").values
            values = values[np.isfinite(values[:, 0])][:, np.isfinite(values[0])]
            # The first layer is drawn first: how many classes there are does not matter.
            values = values - Network.from_config(config, values.shape[1], 1).weights[0]
            self.weights.panels[0].set_image("weights", values, limit=color_limit(values))
            self.weights.panels[0].title("what the first layer has learned: change of its weights since the start")
        names = [name for name, there in kept.items() if not there]
        return f"This run kept no {' and no '.join(names)}." if names else ""

    @staticmethod
    def _what(run: xr.Dataset, spikes: bool) -> str:
        accuracy = run["accuracy"].sel(split="test").values
        accuracy = accuracy[np.isfinite(accuracy)]
        text = f"test accuracy {100 * accuracy[-1]:.2f} %" if len(accuracy) else "accuracy unknown"
        if not spikes:
            return text
        label, prediction = (str(run[name].values[0]) for name in ("sample_label", "sample_prediction"))
        return f"{text}; the first test sample is {label} and is taken for {prediction}"


def save_selection(results: xr.Dataset, table: dict[str, np.ndarray], which: np.ndarray) -> tuple[Path, Path]:
    """Write chosen runs as a table and as a Dataset.

    Parameters
    ----------
    results : xarray.Dataset
        Results over `delta_t`, `seed` and `rule`.
    table : dict of str to ndarray, (run,)
        What :func:`bats_lab.plots.tradeoff.tradeoff_table` returned for them.
    which : ndarray of bool, (run,)
        The runs chosen; a ValueError if there is none.

    Returns
    -------
    (Path, Path)
        ``selection.csv``: time step (s), rule, seed, accuracy (%), cost and file of each run. ``selection.nc``: all
        their metrics; runs that were not chosen are NaN, weights and spikes stay where they are. Both lie in the folder
        of the runs, or in the current one if they come from none.
    """
    import pandas as pd

    if not which.any():
        raise ValueError("No run is chosen; there is nothing to save.")
    paths = [p for p in np.ravel(results["path"].values) if p] if "path" in results else []
    folder = Path(paths[0]).parent if paths else Path()
    columns = (
        "delta_t",
        "rule",
        "seed",
        "accuracy",
        "cost",
        "file",
        *(["trial", "drawn"] if table["drawn"].any() else []),
    )
    as_csv, as_netcdf = folder / "selection.csv", folder / "selection.nc"
    pd.DataFrame({name: table[name][which] for name in columns}).to_csv(as_csv, index=False)

    small = results.drop_vars([n for n, entry in VARIABLES.items() if entry.large and n in results])
    dims = [d for d in ("delta_t", "seed", "rule", "trial") if d in small.dims]
    chosen = xr.zeros_like(small["accuracy"].isel(split=0, epoch=0, drop=True), dtype=bool)
    for row in np.flatnonzero(which):
        chosen.loc[{d: table[d][row] for d in dims}] = True
    small = small.isel({d: np.flatnonzero(chosen.any([o for o in dims if o != d]).values) for d in dims})
    chosen = chosen.sel({d: small[d] for d in dims})
    kept = {
        name: variable.where(chosen, "" if variable.dtype.kind in "UO" else np.nan)
        for name, variable in small.data_vars.items()
    }
    xr.Dataset(kept, attrs=small.attrs).drop_encoding().to_netcdf(as_netcdf, engine="netcdf4")
    return as_csv, as_netcdf
