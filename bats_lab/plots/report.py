"""What a report says about results: tables and sentences computed from them, and figures put into files.

Every sentence is a statement about the numbers at hand and holds for a sweep that is half finished, or has one seed
or one time step only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.collapse import COLLAPSE_RULES, agreement
from bats_lab.estimators import compare_estimators, paired
from bats_lab.metrics import choice_split, last_epoch, pareto_front, summary_table
from bats_lab.plots.runs import after_epoch, dataset_name, runs_to_draw
from bats_lab.plots.style import delta_t_label, png_width, save_figure
from bats_lab.thesis import Verdict

__all__ = [
    "describe_accuracy",
    "describe_collapse",
    "describe_collisions",
    "describe_confidence",
    "describe_estimators",
    "describe_runs",
    "describe_silent_classes",
    "describe_spike_count",
    "describe_tradeoff",
    "describe_verdicts",
    "estimator_table",
    "results_table",
    "show_figures",
    "verdict_table",
]


def results_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Lay out :func:`bats_lab.metrics.summary_table` for reading: units in the headings, values rounded as text.

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
        f"{_count(found, 'run')} on {dataset_name(runs) or 'one data set'}: "
        f"{_count(runs.sizes['delta_t'], 'time step')} ({steps}), {_count(runs.sizes['seed'], 'seed')}, "
        f"{'rule' if runs.sizes['rule'] == 1 else 'rules'} {rules}; layers of {layers} neurons, "
        f"{n_train:,} training and {n_test:,} test samples, {_count(runs.sizes['epoch'], 'epoch')}."
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
        return f"Test accuracy is {value} {_at(best)}, the only time step so far."
    n_test = float(last["n_samples"].max())
    error = float(np.sqrt(mean[best] * (100 - mean[best]) / n_test))
    margin, words = std[best], "one standard deviation of it"
    if not margin >= error:
        margin = error
        words = f"{error:.1f} percentage points of it (the standard error on {n_test:,.0f} test samples)"
    far = _how_far(mean, best, mean[best] - margin, words)
    if last["choice"].attrs["split"] == "validation":
        return (
            f"On the training samples held out for choices, accuracy is best {_at(best)}: {choice[best]:.1f} %; test "
            f"accuracy there is {value}. {far}"
        )
    return f"Test accuracy is best {_at(best)}: {value}. {far}"


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
    beyond = f"accuracy falls to {mean[worst]:.1f} % {_at(worst)}."
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
        f"\n\nIn {int(silent.sum())} of {_count(int(last['accuracy'].notnull().sum()), 'run')} the output neuron of at "
        f"least one class never spikes on the test set, which costs accuracy by itself "
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
        f"{len(front)} of {_count(len(table), 'run')} {'is' if len(front) == 1 else 'are'} on the Pareto front "
        f"(Δt: {steps}). Of the runs within one percentage point of the best{by}, the cheapest is one "
        f"{_at(cheapest['delta_t'])}{rule}: "
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
            f" A spike leaves {1e3 * delay[coarsest]:.2f} ms late {_at(coarsest)} on average, which is "
            f"{delay[coarsest] / coarsest:.2f} of the time step."
        )
    for values, what in ((lost, "spikes lost past the window"), (truncated, "neurons stopped at the spike limit")):
        mean, _, _ = _over_seeds(values)
        if len(mean) and mean.max() > 0:
            text += f" There are up to {mean.max():,.2g} {what} a sample ({_at(mean.idxmax())})."
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
    text = f"{said[finest]}{unit} {_at(finest)}"
    if finest == coarsest:
        return text
    text += f" and {said[coarsest]}{unit if len(unit) < 4 else ''} {_at(coarsest)}"
    for word, extreme in (("lowest", mean.idxmin()), ("highest", mean.idxmax())):
        if said[extreme] not in (said[finest], said[coarsest]):
            text += f" ({word}: {said[extreme]} {_at(extreme)})"
    return text


def _at(delta_t: float) -> str:
    return "in continuous time" if delta_t == 0 else f"at Δt = {delta_t_label(delta_t)}"


def _count(n: int, noun: str) -> str:
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


def describe_verdicts(verdicts: Sequence[Verdict], *figures: str) -> Callable[[xr.Dataset], str]:
    """Return what :func:`show_figures` takes to say what the thesis claims of some figures, and whether it holds.

    Parameters
    ----------
    verdicts : sequence of Verdict
        As :func:`bats_lab.thesis.judge` returns them.
    *figures : str
        Figures as the claims name them, as ``"1, 2"``.

    Raises
    ------
    ValueError
        If there is no claim of such a figure.
    """
    known = list(dict.fromkeys(v.figure for v in verdicts))
    for figure in figures:
        if figure not in known:
            raise ValueError(f"No claim is of figure {figure!r}; there are {', '.join(known)}.")
    text = "\n".join(f"- The thesis: {v.text} **Here: {v.word}.** {v.found}." for v in verdicts if v.figure in figures)
    return lambda _: text


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """Lay out verdicts as a table in Markdown: figure, what the thesis says, the verdict, the numbers it rests on."""
    rows = [(v.figure, v.text, f"**{v.word}**", v.found) for v in verdicts]
    head = ("figure", "the thesis says", "here", "found")
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


#: Points of accuracy below continuous time from which on a network counts as collapsed.
_COLLAPSED = 10.0


def describe_collapse(results: Mapping[str, xr.Dataset], experiments: Mapping[str, Mapping[str, xr.Dataset]]) -> str:
    """Say in three sentences why training collapses at a coarse time step, with the numbers.

    Parameters
    ----------
    results : mapping of str to xarray.Dataset
        The comparison of collision rules, by data set.
    experiments : mapping
        As :func:`bats_lab.collapse.open_experiments` returns them.

    Returns
    -------
    str
        Markdown: a list of three sentences. Where runs or experiments are missing, a sentence says so.
    """
    sentences = (
        _collapse_by_rule(results),
        _collapse_without_training(experiments["cross_test"], experiments["drive_response"]),
        _collapse_and_gradient(experiments["gradient_quality"], experiments["train_crossed"]),
    )
    return "\n".join(f"{i}. {text}" for i, text in enumerate(sentences, 1))


def _collapse_by_rule(results: Mapping[str, xr.Dataset]) -> str:
    told, blamed = [], []
    for name, part in results.items():
        last = 100 * after_epoch(runs_to_draw(part), None)["accuracy"].sel(split="test").mean("seed")
        if 0.0 not in last["delta_t"].values or "drop" not in last["rule"].values:
            continue
        lost = float(last.sel(delta_t=0.0).max()) - last
        drop = lost.sel(rule="drop").dropna("delta_t")
        collapsed = drop["delta_t"].values[drop.values >= _COLLAPSED]
        if not len(collapsed):
            continue
        here = lost.sel(delta_t=collapsed[0])
        others = {rule: float(here.sel(rule=rule)) for rule in COLLAPSE_RULES[1:] if rule in last["rule"].values}
        told.append(
            f"on {name} at {delta_t_label(collapsed[0])} {float(here.sel(rule='drop')):.1f} points under `drop`, "
            + ", ".join(f"{value:.1f} under `{rule}`" for rule, value in others.items())
        )
        blamed += [value < float(here.sel(rule="drop")) / 2 for value in others.values()]
    if not blamed:
        return "In these runs no network collapses under `drop` beside others that have another rule."
    verdict = (
        "Training collapses from rule `drop`, not from the straight-through estimator, which all rules share"
        if all(blamed)
        else "Training collapses under `drop`, but not under that rule alone"
    )
    return (
        f"**{verdict}**: at the first time step that costs `drop` {_COLLAPSED:g} points or more, networks of the same "
        f"seeds lose, against continuous time, {'; '.join(told)}."
    )


def _first_collapsed(accuracy: xr.DataArray, best: float) -> float | None:
    """Return the finest time step at which accuracy (%, over time steps) has collapsed; None: it does at none."""
    steps = accuracy[accuracy.dims[0]].values[accuracy.values <= best - _COLLAPSED]
    return float(steps[0]) if len(steps) else None


def _collapse_without_training(cross: Mapping[str, xr.Dataset], drive: Mapping[str, xr.Dataset]) -> str:
    told = []
    for name, part in cross.items():
        everything = 100 * part["accuracy"].mean("seed")
        accuracy = everything.sel(trained_at=0.0)
        best = float(accuracy.sel(rule="drop", tested_at=0.0))
        step = _first_collapsed(accuracy.sel(rule="drop"), best)
        if step is None:
            continue
        others = ", ".join(
            f"{float(accuracy.sel(rule=rule, tested_at=step)):.1f} % under `{rule}`"
            for rule in COLLAPSE_RULES
            if rule in part["rule"].values
        )
        text = f"on {name} they have {best:.1f} % in continuous time and, "
        text += f"tested at {delta_t_label(step)}, {others}"
        if name in drive and step in drive[name]["delta_t"].values:
            steady = drive[name].isel(pattern=0).sel(rule="drop", delta_t=step)["spike_count"]
            text += (
                f", where a single neuron under `drop` sends {int(steady.max())} spikes at most and "
                f"{int(steady.isel(drive=-1))} when it is driven hardest"
            )
        steps = part["trained_at"]
        same = everything.sel(
            rule="drop", trained_at=steps, tested_at=xr.DataArray(steps.values, {"trained_at": steps})
        )
        failed = _first_collapsed(same, best)
        if failed is not None:
            learned = everything.sel(rule="drop", trained_at=failed)
            text += (
                f"; those trained by the estimator under `drop` at {delta_t_label(failed)} have "
                f"{float(learned.sel(tested_at=failed)):.1f} % there, but {float(learned.sel(tested_at=0.0)):.1f} % in "
                "continuous time"
            )
        told.append(text)
    if not told:
        return "Networks trained in continuous time do not collapse under `drop` in these results, or were not tested."
    return (
        "**It takes no training on the grid**: networks trained in continuous time have never met the estimator; "
        f"{'; '.join(told)}."
    )


def _collapse_and_gradient(quality: Mapping[str, xr.Dataset], crossed: Mapping[str, xr.Dataset]) -> str:
    told = []
    for name, part in quality.items():
        agrees = agreement(part).sel(weights="continuous", gradient="straight_through")
        finest, coarsest = float(agrees["delta_t"].min()), float(agrees["delta_t"].max())
        text = (
            f"on {name} its correlation with the true change of the loss is "
            f"{float(agrees.sel(delta_t=finest).mean('rule')):.2f} at {delta_t_label(finest)} and, at "
            f"{delta_t_label(coarsest)}, "
        )
        text += ", ".join(
            f"{float(agrees.sel(rule=rule, delta_t=coarsest)):.2f} under `{rule}`"
            for rule in COLLAPSE_RULES
            if rule in agrees["rule"].values
        )
        if name in crossed:
            accuracy = 100 * crossed[name]["accuracy"].sel(rule="drop", tested="grid").mean("seed")
            step = float(accuracy["delta_t"].min())
            here = {
                (e, g): float(accuracy.sel(delta_t=step, errors=e, gradient=g)) for e, g in (_GRID, _EXACT_GRADIENT)
            }
            text += (
                f"; training under `drop` at {delta_t_label(step)} with the exact gradient of continuous time in its "
                f"place gives {here[_EXACT_GRADIENT]:.1f} %, with its own {here[_GRID]:.1f} %"
            )
        told.append(text)
    if not told:
        return "The quality of gradients has not been measured yet."
    return f"**How good the straight-through gradient is**: {'; '.join(told)}."


#: Where the errors and the gradients of a training come from.
_GRID, _EXACT_GRADIENT = ("grid", "grid"), ("grid", "continuous")


#: Level of the tests over paired seeds, after correction.
_LEVEL = 0.05


def describe_estimators(results: Mapping[str, xr.Dataset], gradients: Mapping[str, xr.Dataset]) -> str:
    """Tell which gradient estimators are better than the straight-through one, where, and by how much.

    Parameters
    ----------
    results : mapping of str to xarray.Dataset
        The comparison, by data set, over `estimator`, `delta_t`, `rule` and `seed`.
    gradients : mapping of str to xarray.Dataset
        As :func:`bats_lab.estimators.open_gradients` returns them.

    Returns
    -------
    str
        Markdown: a sentence or two for each data set.
    """
    told = []
    for name, part in _compared(results).items():
        table = compare_estimators(part)
        if not len(table):
            continue
        sentences = [_estimators_of(name, table), _rule_instead(part)]
        if name in gradients:
            sentences.append(_agreement_of(gradients[name]))
        told.append("- " + " ".join(filter(None, sentences)))
    missing = "No two estimators were run on the same seeds yet; `bats-lab reproduce estimators` does that."
    return "\n".join(told) or missing


def _compared(results: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Return the parts of the results in which estimators differ."""
    return {name: part for name, part in results.items() if "estimator" in part.dims}


def _estimators_of(name: str, table: pd.DataFrame) -> str:
    def listed(rows: pd.DataFrame) -> str:
        return "; ".join(
            f"`{row.estimator}` under `{row.rule}` {_at(row.delta_t)}: {row.difference:+.1f} points "
            f"[{row.low:+.1f}, {row.high:+.1f}], p = {row.p_holm:.2g}"
            for row in rows.itertuples()
        )

    seeds = int(table["seeds"].max())
    head = f"**{name}**, {_count(seeds, 'seed')}, test accuracy against `straight_through`: "
    if seeds < 2:
        widest = table.loc[table["difference"].abs().idxmax()]
        return (
            f"{head}one seed tells no difference from chance; the largest is {widest['difference']:+.1f} points "
            f"(`{widest['estimator']}` under `{widest['rule']}` {_at(widest['delta_t'])})."
        )
    clear = table[table["p_holm"] < _LEVEL]
    better, worse = clear[clear["difference"] > 0], clear[clear["difference"] < 0]
    parts = [f"{word} are {listed(rows)}" for word, rows in (("better", better), ("worse", worse)) if len(rows)]
    rest = len(table) - len(clear)
    told = "; ".join(parts) if parts else f"in none of {len(table)} comparisons is there a difference beyond chance"
    if rest and parts:
        told += f"; in the other {rest} of {len(table)} comparisons there is no difference that chance would not make"
    largest = table["difference"].abs().where(table["p_holm"] >= _LEVEL).max()
    return f"{head}{told}" + (f" (the largest is {largest:.1f} points)." if rest else ".")


def _rule_instead(part: xr.Dataset) -> str:
    """Tell what the collision rule changes where it changes most, to hold what estimators change against."""
    if not {"drop", "graded"} <= set(part["rule"].values.ravel().tolist()):
        return ""
    test = 100 * last_epoch(part)["accuracy"].sel(split="test", estimator="straight_through")
    gains = {
        step: paired(test.sel(delta_t=step, rule="graded").values, test.sel(delta_t=step, rule="drop").values)
        for step in part["delta_t"].values[part["delta_t"].values > 0].tolist()
    }
    known = {step: gain for step, gain in gains.items() if gain.seeds > 1}
    if not known:
        return ""
    step = max(known, key=lambda step: abs(known[step].difference))
    gain = known[step]
    return (
        f"For comparison, `graded` in place of `drop`, both with `straight_through`, gives "
        f"{gain.difference:+.1f} points [{gain.low:+.1f}, {gain.high:+.1f}] {_at(step)}."
    )


def _agreement_of(gradients: xr.Dataset) -> str:
    mean = agreement(gradients).mean(["rule", "delta_t"]).to_series().drop("continuous", errors="ignore")
    ordered = mean.sort_values(ascending=False)
    told = ", ".join(f"{value:.2f} of `{name}`" for name, value in ordered.items())
    return f"The true change of the loss correlates, on average over rules and time steps, with the gradients: {told}."


def estimator_table(results: Mapping[str, xr.Dataset]) -> str:
    """Lay out the comparison of estimators as a table in Markdown, one row a data set, rule, time step and estimator.

    Parameters
    ----------
    results : mapping of str to xarray.Dataset
        The comparison, by data set.
    """
    head = (
        "data set",
        "rule",
        "Δt",
        "estimator",
        "seeds",
        "test accuracy (%)",
        "choice (%)",
        "difference (points)",
        "p",
    )
    rows = []
    for name, part in _compared(results).items():
        for row in compare_estimators(part).itertuples():
            spread = f" ± {row.std:.2f}" if np.isfinite(row.std) else ""
            interval = f" [{row.low:+.2f}, {row.high:+.2f}]" if np.isfinite(row.low) else ""
            rows.append(
                (
                    name,
                    row.rule,
                    delta_t_label(row.delta_t),
                    row.estimator,
                    str(row.seeds),
                    f"{row.accuracy:.2f}{spread}",
                    f"{row.choice:.2f}" + ("" if row.chosen_by == "validation" else " (test)"),
                    f"{row.difference:+.2f}{interval}",
                    f"{row.p_holm:.2g}" if np.isfinite(row.p_holm) else "",
                )
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))
