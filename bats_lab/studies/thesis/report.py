"""Verdicts on the claims of the thesis, as tables and captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import xarray as xr

from bats_lab.studies.thesis.claims import Verdict

__all__ = ["describe_verdicts", "verdict_table"]


def describe_verdicts(verdicts: Sequence[Verdict], *figures: str) -> Callable[[xr.Dataset], str]:
    """Return what :func:`show_figures` takes to say what the thesis claims of some figures, and whether it holds.

    Parameters
    ----------
    verdicts : sequence of Verdict
        As :func:`bats_lab.studies.thesis.claims.judge` returns them.
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
