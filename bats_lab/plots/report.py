"""What a report says about results: tables and sentences computed from them, and figures put into files.

Every sentence is a statement about the numbers at hand and holds for a sweep that is half finished, or has one seed
or one time step only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.plots.runs import after_epoch, dataset_name, runs_to_draw
from bats_lab.plots.style import delta_t_label, png_width, save_figure
from bats_lab.runs.metrics import choice_split, pareto_front, summary_table

__all__ = [
    "describe_accuracy",
    "describe_collisions",
    "describe_confidence",
    "describe_runs",
    "describe_silent_classes",
    "describe_spike_count",
    "describe_tradeoff",
    "results_table",
    "show_figures",
]


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
    std = table["accuracy_std"]
    shown = {
        "data set": table["dataset"],
        "rule": table["rule"],
        "Δt": table["delta_t"].map(delta_t_label),
        **{name: table[name] for name in _swept(table)},
        "runs": table["runs"].astype(str),
        "test accuracy (%)": [
            f"{100 * a:.1f}" + ("" if np.isnan(s) else f" ± {100 * s:.1f}")
            for a, s in zip(table["accuracy"], std, strict=True)
        ],
        "hidden spikes": table["hidden_spikes"].map("{:,.0f}".format),
        "output spikes": table["output_spikes"].map("{:,.1f}".format),
        "confidence": table["confidence"].map("{:.2f}".format),
        "time to decision (ms)": (1e3 * table["decision_time"]).map("{:.0f}".format),
        "collisions": table["collisions"].map("{:,.1f}".format),
    }
    # Row numbers would say nothing.
    return pd.DataFrame(shown).set_axis([""] * len(table), axis="index")


def _swept(table: pd.DataFrame) -> list[str]:
    """Name the columns of other swept parameters, which stand before the number of runs."""
    before = list(table.columns)[: table.columns.get_loc("runs")]
    return [name for name in before if name not in ("dataset", "rule", "delta_t")]


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
    # Kept out of the module's imports: plots are of use where there is no notebook.
    from IPython import display as ipython

    display: Any = ipython.display
    markdown: Any = ipython.Markdown
    image: Any = ipython.Image
    if not parts:
        display(markdown("Of this there are no results yet."))
    for title, part in parts.items():
        heading = f"**{title}.** " if len(parts) > 1 else ""
        try:
            sentence = describe(part) if describe is not None else ""
            plot = draw(part, **options)
        except ValueError as error:
            display(markdown(f"{heading}{error}"))
            continue
        if heading or sentence:
            display(markdown(heading + sentence))
        stem = name + (f"-{re.sub(r'[^A-Za-z0-9.]+', '_', title)}" if len(parts) > 1 else "")
        png, pdf = Path(folder) / f"{stem}.png", Path(folder) / f"{stem}.pdf"
        picture = image(filename=save_figure(plot, png, pdf, dpi=_DPI))
        # Pixels of the picture are smaller than those of the screen, so that it is sharp on a fine one.
        display(image(data=picture.data, width=round(png_width(picture.data) * 100 / _DPI)))


_DPI = 160


def describe_runs(dataset: xr.Dataset) -> str:
    """Tell what was run, and what is missing."""
    runs = runs_to_draw(dataset, "n_samples", "layer_size", "input_spikes")
    known = runs["accuracy"].notnull().any(["split", "epoch"])
    found, wanted = int(known.sum()), int(known.size)
    n_train, n_test = (int(runs["n_samples"].sel(split=split).max()) for split in ("train", "test"))
    sizes = runs["layer_size"].max(["delta_t", "seed", "rule"])
    layers = "-".join(str(int(n)) for n in sizes.values[np.isfinite(sizes.values)])
    steps = ", ".join(delta_t_label(v) for v in runs["delta_t"].values)
    rules = ", ".join(map(str, runs["rule"].values))
    text = (
        f"{counted(found, 'run')} on {dataset_name(runs) or 'one data set'}: "
        f"{counted(runs.sizes['delta_t'], 'time step')} ({steps}), {counted(runs.sizes['seed'], 'seed')}, "
        f"{'rule' if runs.sizes['rule'] == 1 else 'rules'} {rules}; layers of {layers} neurons, "
        f"{n_train:,} training and {n_test:,} test samples, {counted(runs.sizes['epoch'], 'epoch')}."
    )
    return text if found == wanted else f"{text} Missing so far: {wanted - found} of {wanted} combinations."


def describe_accuracy(dataset: xr.Dataset) -> str:
    """Tell the best accuracy, and up to which time step it holds.

    What counts as equally good is within one standard deviation over the seeds, but never less than the standard
    error that comes from the finite test set. The best is chosen on samples held out of training where runs have them.
    """
    runs = runs_to_draw(dataset, "accuracy", "n_samples", "class_silent")
    last = _with_choice(runs)
    return _by_rule(last, _accuracy_of_rule) + _silent_classes(last)


def _with_choice(runs: xr.Dataset) -> xr.Dataset:
    """Return test metrics after the last epoch, with `choice`: the accuracy by which runs are chosen, in %."""
    last = after_epoch(runs, None)
    split = choice_split(runs)
    choice = 100 * last["accuracy"].sel(split=split, drop=True)
    return last.sel(split="test").assign(choice=choice.assign_attrs(split=split))


def _accuracy_of_rule(last: xr.Dataset) -> str:
    mean, std, n = _over_seeds(100 * last["accuracy"])
    choice, _, _ = _over_seeds(last["choice"])
    best = choice.idxmax()
    value = f"{mean[best]:.1f} %" if n[best] == 1 else f"{mean[best]:.1f} ± {std[best]:.1f} % over {n[best]} seeds"
    if len(mean) == 1:
        return f"Test accuracy is {value} {at_step(best)}, the only time step so far."
    n_test = float(last["n_samples"].max())
    error = float(np.sqrt(mean[best] * (100 - mean[best]) / n_test))
    margin, words = std[best], "one standard deviation of it"
    if not margin >= error:
        margin = error
        words = f"{error:.1f} percentage points of it (the standard error on {n_test:,.0f} test samples)"
    far = _how_far(mean, best, mean[best] - margin, words)
    if last["choice"].attrs["split"] == "validation":
        return (
            f"On training samples held out for choices, accuracy is best {at_step(best)}: {choice[best]:.1f} %; test "
            f"accuracy there is {value}. {far}"
        )
    return f"Test accuracy is best {at_step(best)}: {value}. {far}"


def _how_far(mean: pd.Series, best: float, enough: float, words: str) -> str:
    """Tell up to which time step accuracy is high enough; `words` say what enough is."""
    largest, coarsest = mean.index[mean >= enough].max(), mean.index.max()
    if best == coarsest:
        return "That is the largest time step that was run."
    if (mean[mean.index >= best] >= enough).all():
        return f"Every larger time step that was run is within {words}."
    if largest == coarsest:
        return (
            f"The largest time step that was run, {delta_t_label(coarsest)}, is within {words}; some smaller are not."
        )
    worst = mean[mean.index > largest].idxmin()
    beyond = f"accuracy falls to {mean[worst]:.1f} % {at_step(worst)}."
    if largest == best:
        return f"No larger time step is within {words}; {beyond}"
    return f"The largest time step within {words} is {delta_t_label(largest)} ({mean[largest]:.1f} %); beyond, {beyond}"


def _silent_classes(last: xr.Dataset) -> str:
    """Tell in which runs classes cannot be predicted at all, which looks like a loss of accuracy in general."""
    silent = (last["class_silent"] > 0).any("true_class") & last["accuracy"].notnull()
    if not bool(silent.any()):
        return ""
    steps = last["delta_t"].values[silent.any(["seed", "rule"]).values]
    return (
        f"\n\nIn {int(silent.sum())} of {counted(int(last['accuracy'].notnull().sum()), 'run')} the output neuron of "
        f"at least one class never spikes on the test set, which costs accuracy by itself "
        f"(Δt: {', '.join(map(delta_t_label, steps))})."
    )


def describe_spike_count(dataset: xr.Dataset) -> str:
    """Tell how many spikes hidden and output layers send, and how that changes with the time step."""
    last = after_epoch(runs_to_draw(dataset, "spike_count"), None).sel(split="test")
    return _by_rule(last, _spike_count_of_rule)


def _spike_count_of_rule(last: xr.Dataset) -> str:
    hidden, output = _hidden_and_output(last["spike_count"])
    sentences = []
    if hidden.sizes["layer"]:
        who = "The hidden layer sends" if hidden.sizes["layer"] == 1 else "The hidden layers together send"
        sentences.append(f"{who} {_range(hidden.sum('layer', min_count=1), '{:,.0f}', 'spikes a sample')}.")
    sentences.append(
        f"The output layer sends {_range(output.sum('layer', min_count=1), '{:,.1f}', 'spikes a sample')}."
    )
    return " ".join(sentences)


def describe_confidence(dataset: xr.Dataset) -> str:
    """Tell how far confidence has come in the middle and at the end, and when decisions fall."""
    last = after_epoch(runs_to_draw(dataset, "confidence", "decision_time"), None)
    return _by_rule(last, _confidence_of_rule)


def _confidence_of_rule(last: xr.Dataset) -> str:
    times = last["time"].values
    middle, end = (
        f"after {1e3 * time:g} ms it is {_range(last['confidence'].sel(time=time), '{:.2f}')}"
        for time in (times[len(times) // 2], times[-1])
    )
    decided = _range(1e3 * last["decision_time"], "{:.0f}", "ms")
    return f"Prediction confidence grows with time: {middle}; {end}. The mean time to decision is {decided}."


def describe_tradeoff(dataset: xr.Dataset) -> str:
    """Tell which runs are on the Pareto front of accuracy and spikes, and the cheapest that is nearly the best."""
    last = _with_choice(runs_to_draw(dataset, "accuracy", "spike_count"))
    points = xr.Dataset(
        {
            "accuracy": 100 * last["accuracy"],
            "cost": last["spike_count"].sum("layer", min_count=1),
            "choice": last["choice"],
        }
    )
    table = points.drop_vars("epoch", errors="ignore").to_dataframe().reset_index().dropna(subset=["accuracy", "cost"])
    front = table.iloc[pareto_front(table["cost"].to_numpy(), table["accuracy"].to_numpy())]
    steps = ", ".join(delta_t_label(v) for v in sorted(set(front["delta_t"])))
    near = table[table["choice"] >= table["choice"].max() - 1]
    cheapest = near.loc[near["cost"].idxmin()]
    rule = f" with rule {cheapest['rule']}" if table["rule"].nunique() > 1 else ""
    by = " on the training samples held out for choices" if last["choice"].attrs["split"] == "validation" else ""
    return (
        f"{len(front)} of {counted(len(table), 'run')} {'is' if len(front) == 1 else 'are'} on the Pareto front "
        f"(Δt: {steps}). Of the runs within one percentage point of the best{by}, the cheapest is one "
        f"{at_step(cheapest['delta_t'])}{rule}: "
        f"{cheapest['accuracy']:.1f} % with {cheapest['cost']:,.0f} spikes a sample, hidden and output layers together."
    )


def describe_collisions(dataset: xr.Dataset) -> str:
    """Tell how many crossings collide, how late spikes leave, and what was lost or cut off."""
    needed = ("collisions", "spike_delay", "silent_fraction", "lost_spikes", "truncated_neurons", "layer_size")
    return _by_rule(after_epoch(runs_to_draw(dataset, *needed), None), _collisions_of_rule)


def _collisions_of_rule(last: xr.Dataset) -> str:
    in_network = [last[name].sum("layer", min_count=1) for name in ("collisions", "lost_spikes", "truncated_neurons")]
    collisions, lost, truncated = in_network
    silent = (
        100 * (last["silent_fraction"] * last["layer_size"]).sum("layer", min_count=1) / last["layer_size"].sum("layer")
    )
    text = (
        f"Over all layers, there are {_range(collisions, '{:,.1f}', 'collisions a sample')}; the share of neurons "
        f"silent over the whole test set is {_range(silent, '{:.1f}', '%')}."
    )
    delay, _, _ = _over_seeds(last["spike_delay"].mean("layer"))
    coarsest = delay.index.max() if len(delay) else 0.0
    if coarsest > 0:
        text += (
            f" A spike leaves {1e3 * delay[coarsest]:.2f} ms late {at_step(coarsest)} on average, which is "
            f"{delay[coarsest] / coarsest:.2f} of the time step."
        )
    for values, what in ((lost, "spikes lost past the window"), (truncated, "neurons stopped at the spike limit")):
        mean, _, _ = _over_seeds(values)
        if len(mean) and mean.max() > 0:
            text += f" There are up to {mean.max():,.2g} {what} a sample ({at_step(mean.idxmax())})."
    return text


def _by_rule(last: xr.Dataset, describe: Callable[[xr.Dataset], str]) -> str:
    """Describe each collision rule; where there are several, as a list."""
    rules = [str(rule) for rule in last["rule"].values]
    texts = [describe(last.sel(rule=rule)) for rule in rules]
    if len(rules) == 1:
        return texts[0]
    return "\n\n" + "\n".join(f"- rule {rule}: {text}" for rule, text in zip(rules, texts, strict=True))


def _hidden_and_output(values: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    known = values.dropna(dim="layer", how="all")
    is_output = (known["layer"] == "output").values
    return known.isel(layer=np.flatnonzero(~is_output)), known.isel(layer=np.flatnonzero(is_output))


def _over_seeds(values: xr.DataArray) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Return mean, standard deviation and number over the seeds, by time step; unknown ones are left out."""
    frame = values.transpose("delta_t", "seed").to_pandas()
    frame = frame[frame.notna().any(axis=1)]
    return frame.mean(axis=1), frame.std(axis=1), frame.notna().sum(axis=1)


def _range(values: xr.DataArray, form: str, unit: str = "") -> str:
    """Tell a quantity at the finest and the coarsest time step, and where it lies clearly outside of both."""
    mean, _, _ = _over_seeds(values)
    said = mean.map(form.format)
    unit = f" {unit}" if unit else ""
    if not len(mean):
        return f"an unknown number of{unit}"
    finest, coarsest = mean.index.min(), mean.index.max()
    text = f"{said[finest]}{unit} {at_step(finest)}"
    if finest == coarsest:
        return text
    text += f" and {said[coarsest]}{unit if len(unit) < 4 else ''} {at_step(coarsest)}"
    for word, extreme in (("lowest", mean.idxmin()), ("highest", mean.idxmax())):
        if said[extreme] not in (said[finest], said[coarsest]):
            text += f" ({word}: {said[extreme]} {at_step(extreme)})"
    return text


def at_step(delta_t: float) -> str:
    return "in continuous time" if delta_t == 0 else f"at Δt = {delta_t_label(delta_t)}"


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def describe_silent_classes(dataset: xr.Dataset) -> str:
    """Name the runs in which an output neuron was silent over the whole test set, after their last epoch.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run or of many.
    """
    runs = after_epoch(runs_to_draw(dataset, "class_silent"), None)
    silent = (runs["class_silent"] > 0).sum("true_class").transpose("delta_t", "seed", "rule")
    found = []
    for place, number in np.ndenumerate(silent.values):
        if number:
            step, seed, rule = (silent[d].values[i] for d, i in zip(silent.dims, place, strict=True))
            found.append(f"{delta_t_label(float(step))}, {rule}, seed {seed}: {number}")
    if not found:
        return "In no run was an output neuron silent over the whole test set."
    return f"Output neurons silent over the whole test set: {'; '.join(found)}."
