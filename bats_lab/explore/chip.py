"""What to build: clock, word length and collision rule of a chip, and what each costs in accuracy, joules and time."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import holoviews as hv
import ipywidgets
import numpy as np
import xarray as xr

from bats_lab.explore.picture import Panel, Picture
from bats_lab.explore.widgets import Explorer, Sentence, choice, if_several, in_room, in_words, side_by_side
from bats_lab.plots import style
from bats_lab.plots.runs import check_choice, seeds_text
from bats_lab.spikes.rules import RULES
from bats_lab.studies.chip.choice import without_failed
from bats_lab.studies.chip.deployment import by_dataset, open_deployment
from bats_lab.studies.chip.energy import PACES, deployment_costs
from bats_lab.studies.chip.plots import clock_and_word, quantities, three_way
from bats_lab.studies.chip.prices import HARDWARE, NO_ENERGY
from bats_lab.studies.statistics import mean_and_std

__all__ = ["explore_chip"]

_QUANTITIES = [(quantity.label, name) for name, quantity in quantities.QUANTITIES.items()]
_PACES = [(text, name) for name, text in PACES.items()]
_TOP = 10.0
#: Why a point may have no energy.
_UNPRICED = "only rule clocked, on a clock and with words that the chip has, is what a published chip can run"
#: Pixels of the screen: two pictures stand side by side in JupyterLab on 1280 of them.
_CELL, _WIDTH, _HEIGHT = 33, 330, 300


_PRESETS: dict[str, dict[str, Any]] = {
    "leakage is most of it": {"pace": "real_time", "quantity": "energy", "rule": "clocked", "hardware": "Loihi"},
    "a coarse clock saves updates": {"pace": "dynamic", "quantity": "energy", "rule": "clocked", "hardware": "Loihi"},
    "the cliff under drop": {"quantity": "accuracy", "rule": "drop", "delta_t": 0.008},
    "4 bits will do": {"quantity": "accuracy", "rule": "clocked", "bits": 4},
}


@in_words
def explore_chip(
    deployment: xr.Dataset | str | Path,
    *,
    quantity: str = "accuracy",
    hardware: str = "Loihi",
    pace: str = "real_time",
    rule: str | None = None,
    split: str = "validation",
) -> Explorer:
    """Explore what clock and word length cost under each collision rule: choose a cell, see it among all others.

    Parameters
    ----------
    deployment : xarray.Dataset, str or Path
        As :func:`bats_lab.studies.chip.deployment.open_deployment` returns it, or the folder of the files.
    quantity : str
        What is shown first for every clock and word: ``accuracy``, ``spikes``, ``synaptic_events``, ``active_share``,
        ``energy`` or ``decision_time``.
    hardware : str
        A row of :data:`bats_lab.studies.chip.prices.HARDWARE`.
    pace : str
        What is taken for leakage, one of :data:`bats_lab.studies.chip.energy.PACES`.
    rule : str or None
        Collision rule shown first; None: ``clocked`` where it was measured, the only one with a price.
    split : str
        Images shown first; choices are made on ``validation`` images.

    Returns
    -------
    Explorer
        Of the networks that learned, as :func:`bats_lab.studies.chip.choice.without_failed` finds them; the others are
        named. With the controls `rule`, `quantity`, `hardware`, `pace`, `split`, `delta_t` and `bits`, and `part`
        where there are several data sets. A click on a cell or a point chooses clock, word and rule.
    """
    if isinstance(deployment, (str, Path)):
        deployment = open_deployment(deployment)
    if not isinstance(deployment, xr.Dataset):
        raise TypeError(f"deployment is a {type(deployment).__name__}; it must be an xarray.Dataset or a folder.")
    learned, failed = without_failed(by_dataset(deployment))
    parts = {name: _Part(part) for name, part in learned.items()}
    if not parts:
        raise ValueError("Nothing was measured of this deployment yet; there is nothing to explore.")
    first = next(iter(parts))
    splits = [str(name) for name in deployment["split"].values]
    for name, value, allowed in (
        ("split", split, splits),
        ("quantity", quantity, quantities.QUANTITIES),
        ("hardware", hardware, HARDWARE),
        ("pace", pace, PACES),
    ):
        check_choice(name, value, tuple(allowed))
    rules = list(dict.fromkeys(name for part in parts.values() for name in part.rules))
    rule = rule or ("clocked" if "clocked" in rules else rules[0])
    steps, words = (deployment[name].values.tolist() for name in ("delta_t", "bits"))
    start = parts[first].best(rule, split)
    rows = [
        {
            **if_several("part", "data set", list(parts)),
            "rule": choice("rule", rules, rule),
            "quantity": choice("shown", _QUANTITIES, quantity),
            "split": choice("images", splits, split),
        },
        {"hardware": choice("hardware", list(HARDWARE), hardware), "pace": choice("energy", _PACES, pace)},
        {
            "delta_t": choice("Δt", [(style.delta_t_label(v), v) for v in steps], start[0]),
            "bits": choice("bits", [(quantities.word_label(v), v) for v in words], start[1]),
        },
    ]

    grid = Picture([_first_grid(parts[first], quantity, hardware, pace, rule, split)], rigid=True)
    plane = Picture([_first_plane(parts[first], hardware, pace, split)])
    numbers = Sentence()
    shown: dict[str, tuple[Any, ...]] = {}

    def changed(name: str, *values: Any) -> bool:
        """Say whether a picture has to be drawn anew."""
        before, shown[name] = shown.get(name), values
        return before != values

    def draw(
        rule: str, quantity: str, split: str, hardware: str, pace: str, delta_t: float, bits: int, part: str = first
    ) -> str:
        own = parts[part]
        if changed("grid", part, quantity, rule, split, *((hardware, pace) if quantity == "energy" else ())):
            _show_grid(grid.panels[0], own, quantity, hardware, pace, rule, split)
        if changed("plane", part, hardware, pace, split):
            _show_plane(plane.panels[0], own, hardware, pace, split)
        column, row = sorted(steps).index(delta_t), sorted(words).index(bits)
        corners = {"left": column - 0.5, "bottom": row - 0.5, "right": column + 0.5, "top": row + 0.5}
        grid.panels[0].set("selected", {name: np.array([corner]) for name, corner in corners.items()})
        table, _ = own.table(hardware, pace, split)
        # In continuous time the first rule stands for all.
        of_rule = (table["rule"] == rule) | (delta_t == 0)
        chosen = np.flatnonzero(of_rule & (table["delta_t"] == delta_t) & (table["bits"] == bits))
        plane.panels[0].set("selected", {name: table[name][chosen] for name in ("energy", "accuracy")})
        numbers.tell(" ".join([own.numbers(rule, delta_t, bits, hardware, split), *failed]))
        if len(chosen):
            return ""
        if not RULES[rule].clocked or delta_t == 0:
            return f"No price: {_UNPRICED}."
        return quantities.not_priced(hardware, pace) or f"No price: {hardware} has no words of {bits} bits."

    def body() -> Any:
        rooms = [in_room(picture.widget, width=width) for picture, width in ((grid, 470), (plane, 460))]
        both = side_by_side(rooms, align_items="flex-start", grid_gap="2px 10px")
        return ipywidgets.VBox([both, numbers])

    explorer = Explorer(rows, draw, [grid, plane], body=body, presets=_PRESETS)
    explorer.numbers = numbers

    def on_cell(mark: dict[str, Any]) -> None:
        column, row = (round(float(mark[name]) + 0.5) for name in ("x0", "y0"))
        explorer.choose({"delta_t": sorted(steps)[column], "bits": sorted(words)[row]})

    def on_point(mark: dict[str, Any]) -> None:
        values = explorer.values
        table, _ = parts[values.get("part", first)].table(values["hardware"], values["pace"], values["split"])
        row = int(mark["point"])
        point = {"delta_t": float(table["delta_t"][row]), "bits": int(table["bits"][row])}
        # In continuous time all rules but one are the same: the rule stays.
        explorer.choose(point | ({"rule": str(table["rule"][row])} if point["delta_t"] else {}))

    grid.panels[0].on_click("cells", on_cell)
    for name in _SERIES:
        plane.panels[0].on_click(name, on_point)
    return explorer


#: Groups of the points.
_SERIES = [f"rule {name}" for name in (*RULES, "continuous time")]


class _Part:
    """What is known of one data set; each table is made when it is first asked for."""

    def __init__(self, deployment: xr.Dataset) -> None:
        self.results = quantities.narrowed(deployment).load()
        self.costs = deployment_costs(self.results)
        self.rules = quantities.rules_of(self.results)
        self.table = functools.cache(self._table)
        self.values = functools.cache(self._values)

    def _values(
        self, quantity: str, hardware: str, pace: str, split: str
    ) -> tuple[xr.DataArray, hv.Dimension, clock_and_word.ColorScale]:
        results, costs = self.results.sel(split=split), self.costs.sel(split=split)
        values, axis = quantities.measured(results, quantity, hardware=hardware, pace=pace, costs=costs)
        means = values.sel(rule=self.rules).mean("seed")
        return values, axis, clock_and_word.ColorScale.over(means, good=quantities.QUANTITIES[quantity].large_is_good)

    def _table(self, hardware: str, pace: str, split: str) -> tuple[dict[str, np.ndarray], hv.Dimension]:
        options: dict[str, Any] = {"hardware": hardware, "pace": pace, "split": split, "costs": self.costs}
        return three_way.three_way_table(self.results, **options)

    def best(self, rule: str, split: str) -> tuple[float, int]:
        """Return the clock and word of the best accuracy on a clock, on which the look begins."""
        check_choice("rule", rule, tuple(self.rules))
        accuracy = self.results["accuracy"].sel(rule=rule, split=split).mean("seed")
        on_clock = accuracy.sel(delta_t=accuracy["delta_t"] > 0) if (accuracy["delta_t"] > 0).any() else accuracy
        best = on_clock.stack(point=("delta_t", "bits")).idxmax("point").item()
        return float(best[0]), int(best[1])

    def numbers(self, rule: str, delta_t: float, bits: int, hardware: str, split: str) -> str:
        """Tell all numbers of a point."""
        word = quantities.word_label(bits)
        name = f"{style.delta_t_label(delta_t)}, {word if word.endswith('trained') else f'{word} bits'}, {rule}"
        chosen = {"delta_t": delta_t, "bits": bits, "rule": rule}
        of_splits = self.results.sel(chosen) if rule in self.rules else None
        if of_splits is None or not bool(of_splits["accuracy"].sel(split=split).notnull().any()):
            return f"{name}: nothing was measured here."
        point = of_splits.sel(split=split)
        seeds = int(point["accuracy"].notnull().sum())
        right = ", ".join(
            f"{mean_and_std(100 * of_splits['accuracy'].sel(split=s), 2) or 'unknown'} % of {s} images"
            for s in self.results["split"].values
        )
        spikes, events = (
            mean_and_std(point[v].sum("layer", min_count=1), 0) or "unknown" for v in ("spike_count", "synaptic_events")
        )
        share = self.costs["input_share"].sel(chosen | {"split": split}).mean("seed").item()
        inputs = "unknown" if math.isnan(share) else f"{100 * share:.0f} %"
        sums, axis = quantities.energies(self.results, hardware, self.costs)
        digits, unit, note = (2, axis.unit, "")
        if axis.unit is None:
            digits, unit, note = 0, "effective synaptic operations", f" ({NO_ENERGY})"
        paces = PACES if axis.unit else {"dynamic": ""}
        energies = {text: sums[pace].sel(chosen | {"split": split}) for pace, text in paces.items()}
        known = [f"{mean_and_std(v, digits)} {text}".rstrip() for text, v in energies.items() if v.notnull().any()]
        energy = f"{', '.join(known)}, in {unit} on {hardware}{note}" if known else f"no price ({_UNPRICED})"
        return (
            f"{name} ({'each of 2 seeds' if seeds == 2 else seeds_text(seeds)}): right on {right}. "
            f"On {split} images: {spikes} spikes and {events} synaptic events per inference, {inputs} of them from "
            f"inputs; {energy}; decided after {mean_and_std(1e3 * point['decision_time'], 0) or 'unknown'} ms."
        )


# ------------------------------------------------------------------------------------------------- the two plots


def _first_grid(part: _Part, quantity: str, hardware: str, pace: str, rule: str, split: str) -> hv.Overlay:
    values, axis, scale = part.values(quantity, hardware, pace, split)
    color = style.CONTINUOUS_COLOR
    screen = {"fill_color": None, "line_color": color, "line_width": 3}
    frame = hv.Rectangles([(0.0, 0.0, 0.0, 0.0)], group="selected")
    frame = style.styled(frame, screen=screen, paper={"facecolor": "none", "edgecolor": color})
    # All cells there are, so that each series exists.
    return clock_and_word.draw_cells(values.sel(rule=rule), axis, scale, title=" ", marks=[frame], cell=_CELL)


def _first_plane(part: _Part, hardware: str, pace: str, split: str) -> hv.Overlay:
    table, axis = part.table(hardware, pace, split)
    nowhere = hv.Scatter(([np.nan], [np.nan]), axis, "accuracy", group="selected", label="selected")
    mark = style.ring(nowhere, size=17, color=style.CONTINUOUS_COLOR)
    marks = [style.styled(mark, screen={"line_width": 2.5})]
    options: dict[str, Any] = {"top": _TOP, "every_rule": True, "width": _WIDTH, "height": _HEIGHT}
    return three_way.draw_three_way(table, axis, title=" ", split=split, marks=marks, **options)


def _show_grid(panel: Panel, part: _Part, quantity: str, hardware: str, pace: str, rule: str, split: str) -> None:
    values, axis, scale = part.values(quantity, hardware, pace, split)
    of_rule = values.sel(rule=rule) if rule in part.rules else values.isel(rule=0) * math.nan
    columns = clock_and_word.cell_columns(of_rule, axis, scale)
    corners = {"left": "x0", "bottom": "y0", "right": "x1", "top": "y1"}  # Bokeh's names
    panel.set("cells", columns | {name: columns[own] for name, own in corners.items()})
    for name, texts in clock_and_word.cell_texts(columns).items():
        panel.set(name, texts)
    panel.title(f"rule {rule}\n{axis.pprint_label}")


def _show_plane(panel: Panel, part: _Part, hardware: str, pace: str, split: str) -> None:
    table, axis = part.table(hardware, pace, split)
    for name, which in three_way.series_of(table).items():
        panel.set(f"rule {name}", three_way.point_columns(table, which))
    rings, spread = three_way.front_columns(table, _TOP)
    panel.set("front", rings)
    panel.set("spread", spread)
    panel.labels(x=axis.pprint_label, y=f"{split} accuracy (%)")
    if len(table["energy"]):
        x_limits, y_limits = three_way.three_way_limits(table, _TOP)
        panel.x_limits(*x_limits)
        panel.y_limits(*y_limits)
        panel.x_ticks(style.log_ticks(*x_limits))
        times = [f"{time:.0f} ms" for time, _ in three_way.time_legend(table)]
        for i, text in enumerate(times):
            panel.name(f"legend {len(_SERIES) + i}", text)
        panel.title(three_way.three_way_note(table, _TOP).replace("; ", "\n").replace(", ", "\n", 1))
