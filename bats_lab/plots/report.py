"""What a report says about results: a table, sentences of one line with the figures in them, and plots put into files.

What the figures mean stands in the notebook that shows them. Every sentence holds for a sweep that is half finished, or
has one seed or one time step only.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.plots.figures import figure_text, save_figure, show_png
from bats_lab.plots.runs import after_epoch, dataset_name, runs_to_draw, spread_text
from bats_lab.plots.style import delta_t_label
from bats_lab.runs.metrics import choice_split, pareto_front, summary_table

__all__ = [
    "at_step",
    "counted",
    "describe_accuracy",
    "describe_collisions",
    "describe_confidence",
    "describe_runs",
    "describe_silent_classes",
    "describe_spike_count",
    "describe_tradeoff",
    "results_table",
    "show_figures",
    "show_text",
]

#: Columns of :func:`results_table` after what tells its rows apart: heading, column of the summary, factor, format.
_COLUMNS = (
    ("hidden spikes", "hidden_spikes", 1, "{:,.0f}"),
    ("output spikes", "output_spikes", 1, "{:,.1f}"),
    ("confidence", "confidence", 1, "{:.2f}"),
    ("time to decision (ms)", "decision_time", 1e3, "{:.0f}"),
    ("collisions", "collisions", 1, "{:,.1f}"),
)


def results_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Lay out :func:`bats_lab.runs.metrics.summary_table` for reading: units in the headings, values rounded as text.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many.

    Returns
    -------
    pandas.DataFrame
        One row for each data set, rule, time step and other swept value.
    """
    table = summary_table(dataset)
    # Other swept parameters stand before the number of runs.
    swept = [n for n in table.columns[: table.columns.get_loc("runs")] if n not in ("dataset", "rule", "delta_t")]
    accuracies = zip(100 * table["accuracy"], 100 * table["accuracy_std"], table["runs"], strict=True)
    shown = {
        "data set": table["dataset"],
        "rule": table["rule"],
        "Δt": table["delta_t"].map(delta_t_label),
        **{name: table[name] for name in swept},
        "runs": table["runs"].astype(str),
        "test accuracy (%)": [spread_text(*accuracy) for accuracy in accuracies],
        **{
            heading: [form.format(v) if np.isfinite(v) else "–" for v in factor * table[name]]
            for heading, name, factor, form in _COLUMNS
        },
    }
    # Row numbers would say nothing.
    return pd.DataFrame(shown).set_axis([""] * len(table), axis="index")


def show_text(text: str) -> None:
    """Show a sentence in a notebook, with bold and code as Markdown has them; all else is text, and never runs."""
    # Kept out of the module's imports: plots are of use where there is no notebook.
    from IPython import display as ipython

    if text:
        ipython.display(ipython.Markdown(re.sub(r"([\[\]])", r"\\\1", html.escape(text, quote=False))))


def show_figures(
    parts: Mapping[str, xr.Dataset],
    draw: Callable[..., Any],
    describe: Callable[[xr.Dataset], str] | None = None,
    *,
    folder: str | Path,
    name: str,
    **options: Any,
) -> None:
    """Draw a plot of each part of the results, write it into files, and show it in the notebook with its sentence.

    Parameters
    ----------
    parts : mapping of str to xarray.Dataset
        As :func:`bats_lab.plots.split_results` gives them.
    draw : callable
        A ``plot_`` function.
    describe : callable or None
        Returns the sentence for a part; None: no sentence.
    folder : str or Path
        Where the figures go.
    name : str
        Name of the files, without suffix; where there are several parts, the part is added.
    **options
        Options of `draw`.

    Notes
    -----
    Written are ``.pdf`` and ``.png``, and the latter is what is shown, so the notebook reads without a kernel. A part
    of which there is nothing to draw gets the reason in place of a figure.
    """
    show_text("" if parts else "Of this there are no results yet.")
    for title, part in parts.items():
        heading = f"**{title}.** " if len(parts) > 1 else ""
        try:
            sentence = describe(part) if describe is not None else ""
            plot = draw(part, **options)
        except ValueError as error:
            show_text(f"{heading}{error}")
            continue
        show_text(heading + sentence)
        stem = name + (f"-{re.sub(r'[^A-Za-z0-9.]+', '_', title)}" if len(parts) > 1 else "")
        png, pdf = Path(folder) / f"{stem}.png", Path(folder) / f"{stem}.pdf"
        show_png(save_figure(plot, png, pdf, dpi=_DPI).read_bytes(), dpi=_DPI, alternative=figure_text(plot))


_DPI = 160


def describe_runs(dataset: xr.Dataset) -> str:
    """Tell what was run, and what is missing."""
    runs = runs_to_draw(dataset, "n_samples", "layer_size")
    known = runs["accuracy"].notnull().any(["split", "epoch"])
    sizes = runs["layer_size"].max(["delta_t", "seed", "rule"]).values
    n_train, n_test = (int(runs["n_samples"].sel(split=split).max()) for split in ("train", "test"))
    facts = {
        "time steps": ", ".join(map(delta_t_label, runs["delta_t"].values)),
        "rules": ", ".join(map(str, runs["rule"].values)),
        "seeds": runs.sizes["seed"],
        "layers": "-".join(f"{n:.0f}" for n in sizes[np.isfinite(sizes)]),
        "training samples": f"{n_train:,}",
        "test samples": f"{n_test:,}",
        "epochs": runs.sizes["epoch"],
        "missing so far": f"{known.size - int(known.sum())} of {known.size} combinations",
    }
    listed = "; ".join(f"{name}: {value}" for name, value in facts.items())
    return f"{counted(int(known.sum()), 'run')} on {dataset_name(runs) or 'one data set'}; {listed}."


def describe_accuracy(dataset: xr.Dataset) -> str:
    """Tell the best accuracy, up to which time step it holds, and where it is lowest.

    It holds within one standard deviation over the seeds, where there are three or more, but never less than the
    standard error that comes from the finite test set. The best is chosen on samples held out of training where runs
    have them.
    """
    runs = runs_to_draw(dataset, "accuracy", "n_samples")
    last, split = after_epoch(runs, None), choice_split(runs)

    def line(last: xr.Dataset) -> str:
        mean, std, n = _over_seeds(100 * last["accuracy"].sel(split="test"))
        choice, _, _ = _over_seeds(100 * last["accuracy"].sel(split=split))
        best, worst = choice.idxmax(), mean.idxmin()
        error = np.sqrt(mean[best] * (100 - mean[best]) / float(last["n_samples"].sel(split="test").max()))
        margin = float(np.fmax(std[best], error)) if n[best] > 2 else float(error)
        largest = mean.index[mean >= mean[best] - margin].max()
        return (
            f"By {split} accuracy the best is {at_step(best)}: {spread_text(mean[best], std[best], n[best])} % of test "
            f"samples are right ({counted(n[best], 'seed')}). Largest time step within {margin:.1f} percentage points "
            f"of it: {delta_t_label(largest)} ({mean[largest]:.1f} %). Lowest: {mean[worst]:.1f} % {at_step(worst)}."
        )

    return _by_rule(last, line)


def describe_silent_classes(dataset: xr.Dataset) -> str:
    """Name the runs in which an output neuron was silent over the whole test set, after their last epoch.

    Such a class costs its whole share of the accuracy, which looks like a loss of accuracy in general.
    """
    runs = after_epoch(runs_to_draw(dataset, "class_silent", "confusion"), None)
    tested = runs["confusion"].sum("predicted_class") > 0  # a class without images has nothing to answer to
    silent = (tested & (runs["class_silent"] > 0)).sum("true_class").stack(run=("delta_t", "rule", "seed"))
    silent_runs = [
        f"{delta_t_label(delta_t)}, {rule}, seed {seed}: {int(n)}"
        for (delta_t, rule, seed), n in zip(silent["run"].values.tolist(), silent.values, strict=True)
        if n
    ]
    if not silent_runs:
        return "In no run was an output neuron silent over the whole test set."
    return f"Output neurons silent over the whole test set: {'; '.join(silent_runs)}."


def describe_spike_count(dataset: xr.Dataset) -> str:
    """Tell how many spikes hidden and output layers send at each end of their range."""
    last = after_epoch(runs_to_draw(dataset, "spike_count"), None)["spike_count"].sel(split="test")
    is_output = last["layer"] == "output"

    def line(last: xr.DataArray) -> str:
        hidden, output = (last.where(which).sum("layer", min_count=1) for which in (~is_output, is_output))
        return f"Spikes a sample: hidden layers {_range(hidden, '{:,.0f}')}, output layer {_range(output, '{:,.1f}')}."

    return _by_rule(last, line)


def describe_confidence(dataset: xr.Dataset) -> str:
    """Tell how far confidence has come in the middle and at the end, and when decisions fall."""
    last = after_epoch(runs_to_draw(dataset, "confidence", "decision_time"), None)
    times = last["time"].values

    def line(last: xr.Dataset) -> str:
        middle, end = (
            f"after {1e3 * time:g} ms {_range(last['confidence'].sel(time=time), '{:.2f}')}"
            for time in (times[len(times) // 2], times[-1])
        )
        decided = _range(1e3 * last["decision_time"], "{:.0f} ms")
        return f"Prediction confidence {middle}, {end}; mean time to decision {decided}."

    return _by_rule(last, line)


def describe_tradeoff(dataset: xr.Dataset) -> str:
    """Tell which runs are on the Pareto front of accuracy and spikes, and the cheapest that is nearly the best.

    Nearly the best is within one percentage point, on samples held out of training where runs have them.
    """
    runs = runs_to_draw(dataset, "accuracy", "spike_count")
    last, split = after_epoch(runs, None).drop_vars("epoch", errors="ignore"), choice_split(runs)
    columns = {
        "accuracy": 100 * last["accuracy"].sel(split="test", drop=True),
        "choice": 100 * last["accuracy"].sel(split=split, drop=True),
        "cost": last["spike_count"].sel(split="test", drop=True).sum("layer", min_count=1),
    }
    table = xr.Dataset(columns).to_dataframe().reset_index().dropna(subset=["accuracy", "cost"])
    front = table.iloc[pareto_front(table["cost"].to_numpy(), table["accuracy"].to_numpy())]
    near = table[table["choice"] >= table["choice"].max() - 1]
    cheapest = near.loc[near["cost"].idxmin()]
    steps = ", ".join(map(delta_t_label, sorted(set(front["delta_t"]))))
    return (
        f"On the Pareto front: {len(front)} of {counted(len(table), 'run')} (Δt: {steps}). The cheapest within one "
        f"percentage point of the best by {split} accuracy: {cheapest['rule']} {at_step(cheapest['delta_t'])}, "
        f"{cheapest['accuracy']:.1f} % of the test samples with {cheapest['cost']:,.0f} spikes each, hidden and output "
        f"layers together."
    )


def describe_collisions(dataset: xr.Dataset) -> str:
    """Tell how many crossings collide, how late spikes leave, and what was lost or cut off, over all layers."""
    needed = ("collisions", "spike_delay", "silent_fraction", "lost_spikes", "truncated_neurons", "layer_size")

    def line(last: xr.Dataset) -> str:
        collisions, lost, truncated = (
            last[name].sum("layer", min_count=1) for name in ("collisions", "lost_spikes", "truncated_neurons")
        )
        silent = 100 * last["silent_fraction"].weighted(last["layer_size"].fillna(0)).mean("layer")
        return (
            f"Collisions a sample: {_range(collisions, '{:,.1f}')}. Mean delay of a spike: "
            f"{_range(1e3 * last['spike_delay'].mean('layer'), '{:.2f} ms')}. Neurons silent over the whole test set: "
            f"{_range(silent, '{:.1f} %')}. Spikes lost past the window, a sample: {_range(lost, '{:,.2g}')}; neurons "
            f"stopped at the spike limit: {_range(truncated, '{:,.2g}')}."
        )

    return _by_rule(after_epoch(runs_to_draw(dataset, *needed), None), line)


def at_step(delta_t: float) -> str:
    """Name a time step within a sentence."""
    return "in continuous time" if delta_t == 0 else f"at Δt = {delta_t_label(delta_t)}"


def counted(n: int, noun: str) -> str:
    """Put a number before a noun."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _by_rule(last: Any, line: Callable[[Any], str]) -> str:
    """Describe each collision rule; where there are several, as a list."""
    texts = {str(rule): line(last.sel(rule=rule)) for rule in last["rule"].values}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "\n\n" + "\n".join(f"- rule {rule}: {text}" for rule, text in texts.items())


def _over_seeds(values: xr.DataArray) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Return mean, standard deviation and number over the seeds, by time step; unknown ones are left out."""
    frame = values.transpose("delta_t", "seed").to_pandas()
    frame = frame[frame.notna().any(axis=1)]
    return frame.mean(axis=1), frame.std(axis=1), frame.notna().sum(axis=1)


def _range(values: xr.DataArray, form: str) -> str:
    """Tell the lowest and the highest mean over seeds, each with its time step."""
    mean, _, _ = _over_seeds(values)
    ends = dict.fromkeys((mean.idxmin(), mean.idxmax())) if len(mean) else {}
    return " to ".join(f"{form.format(mean[step])} ({delta_t_label(step)})" for step in ends) or "unknown"
