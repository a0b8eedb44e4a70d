"""Verdicts on the claims of the thesis, as lines under a figure and as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import xarray as xr

from bats_lab.plots.style import delta_t_label
from bats_lab.runs.metrics import last_epoch
from bats_lab.studies.statistics import difference_text, mean_and_std, paired
from bats_lab.studies.study import Verdict

__all__ = ["describe_verdicts", "remedy_table", "verdict_table"]


def describe_verdicts(verdicts: Sequence[Verdict], figure: int) -> Callable[[xr.Dataset], str]:
    """Return what :func:`show_figures` takes to say what the thesis claims of a figure, and whether it holds.

    Parameters
    ----------
    verdicts : sequence of Verdict
        As :func:`bats_lab.studies.thesis.claims.judge` returns them.
    figure : int
        A claim about several figures stands under the last of them.

    Raises
    ------
    ValueError
        If there is no claim of such a figure.
    """
    last = [int(v.figure.split(", ")[-1]) for v in verdicts]
    if figure not in last:
        raise ValueError(f"No claim is of figure {figure}; there are {', '.join(map(str, dict.fromkeys(last)))}.")
    own = [v for v, number in zip(verdicts, last, strict=True) if number == figure]
    text = "\n".join(f"- The thesis: {v.text} **Here: {v.word}.** {v.numbers}." for v in own)
    return lambda _: text


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Lay out verdicts as a table: figure, what the thesis says, the verdict, the numbers it rests on."""
    rows = [(v.figure, v.text, v.word, v.numbers) for v in verdicts]
    return pd.DataFrame(rows, columns=["figure", "the thesis says", "here", "numbers"])


def remedy_table(results: xr.Dataset, mended: xr.Dataset) -> pd.DataFrame:
    """List accuracies (%) after the last epoch with the thesis' error and with the remedy, one row a time step of it.

    `results` are the runs of a study and `mended` those of :func:`bats_lab.studies.thesis.study.remedy_configs`. The
    difference on test images is in points over paired seeds.
    """
    rows, accuracy = [], [100 * last_epoch(part)["accuracy"] for part in (results, mended)]
    own, other = (v.expand_dims([d for d in ("delta_t", "seed") if d not in v.dims]) for v in accuracy)
    for step in [step for step in other["delta_t"].values.tolist() if step in own["delta_t"].values]:
        before, after = xr.align(own.sel(delta_t=step), other.sel(delta_t=step))
        row = {"Δt": delta_t_label(step)}
        for split in ("train", "test"):
            row[f"{split}, own counts (%)"] = mean_and_std(before.sel(split=split).values, 2)
            row[f"{split}, remedy (%)"] = mean_and_std(after.sel(split=split).values, 2)
        against = paired(after.sel(split="test"), before.sel(split="test"))
        rows.append(row | {"gained (points)": difference_text(against), "seeds": str(against.seeds)})
    return pd.DataFrame(rows)
