"""Verdicts on the claims of the thesis, as lines under a figure and as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import xarray as xr

from bats_lab.studies.study import Verdict

__all__ = ["describe_verdicts", "verdict_table"]


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
