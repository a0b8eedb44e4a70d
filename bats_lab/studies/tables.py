"""Tables of a study's report: DataFrames of text, shown in a notebook as Markdown."""

from __future__ import annotations

from typing import Any

import pandas as pd

__all__ = ["in_markdown", "show_table"]


def in_markdown(table: pd.DataFrame) -> str:
    """Write a table in Markdown, without its index."""
    rows = [tuple(table.columns), ("---",) * len(table.columns), *table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def show_table(table: pd.DataFrame) -> None:
    """Show a table in a notebook, or say that it is empty."""
    # Kept out of the module's imports: tables are of use where there is no notebook.
    from IPython import display as ipython

    display: Any = ipython.display
    markdown: Any = ipython.Markdown
    display(markdown(in_markdown(table) if len(table) else "Of this there is nothing in these results yet."))
