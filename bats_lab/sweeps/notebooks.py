"""The project's notebooks: where they lie, a copy to change, and the report made from one."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bats_lab.errors import BatsLabError
from bats_lab.runs.results import SEARCH
from bats_lab.runs.store import is_url, results_at
from bats_lab.sweeps.pool import Call, Pool

__all__ = ["make_report", "notebook_path", "prepare_notebooks", "source_notebook"]

_PACKAGE = Path(__file__).resolve().parent.parent


def notebook_path(name: str) -> Path:
    """Return the path of a notebook of the project, by its name without ``.ipynb`` or with it.

    Raises
    ------
    FileNotFoundError
        If there is no such notebook.
    """
    for folder in (_PACKAGE / "notebooks", _PACKAGE.parent / "notebooks"):
        path = folder / f"{name.removesuffix('.ipynb')}.ipynb"
        if path.is_file():
            return path
    raise FileNotFoundError(f"There is no notebook {name!r} in {_PACKAGE.parent / 'notebooks'} or inside the package.")


def source_notebook(notebook: str | Path | None, name: str) -> Path:
    """Return the path of the notebook given, or else of the project's own of that name."""
    if notebook is None:
        return notebook_path(name)
    if not Path(notebook).is_file():
        raise FileNotFoundError(f"There is no notebook {str(notebook)!r}.")
    return Path(notebook).resolve()


def prepare_notebooks(folder: str | Path | None = None) -> Path:
    """Return a folder in which the notebooks lie, in ``notebooks/``, and can be changed.

    Parameters
    ----------
    folder : str, Path or None
        Where to copy them. None: a checkout is used as it is; from an installed package they are copied to
        ``bats-lab`` in the user's home. Notebooks that are there already are left as they are.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    source = notebook_path("10_train").parent
    if folder is None and source.parent == _PACKAGE.parent and os.access(source, os.W_OK):
        return source.parent
    root = (Path("~/bats-lab") if folder is None else Path(folder)).expanduser().resolve()
    (root / "notebooks").mkdir(parents=True, exist_ok=True)
    for notebook in source.glob("*.ipynb"):
        target = root / "notebooks" / notebook.name
        if not target.exists():
            target.write_bytes(notebook.read_bytes())
    return root


def make_report(
    out: str | Path, *, notebook: str | Path | None = None, parameters: Mapping[str, Any] | None = None
) -> Path:
    """Execute the report notebook on a folder of results and export it as one HTML file that needs no network.

    Parameters
    ----------
    out : str or Path
        Folder of results, or its URL; ``report.ipynb`` and ``report.html`` are written into it, and the latter is
        returned.
    notebook : str, Path or None
        Another notebook in place of ``20_report`` (of a search ``27_search``), with the parameter `results_dir`.
    parameters : mapping, optional
        Further parameters of the notebook.

    Raises
    ------
    FileNotFoundError
        If there are no results in `out`, or no such notebook.
    BatsLabError
        If the notebook fails; it is left as ``report.failed.ipynb``.
    """
    if is_url(out):
        with results_at(out) as mirror:
            return make_report(mirror, notebook=notebook, parameters=parameters)
    out = Path(out).resolve()
    if not any(file for kind in ("run", "study", "experiment", "deployment") for file in out.glob(f"{kind}-*.nc")):
        raise FileNotFoundError(f"There are no results in {out}; a report needs at least one finished run.")
    source = source_notebook(notebook, "27_search" if (out / SEARCH).exists() else "20_report")
    executed, page, failed = out / "report.ipynb", out / "report.html", out / "report.failed.ipynb"
    # What else a report shows is named from the folder of its notebook, as when it is opened by hand.
    arguments = {"source": str(source), "out": str(executed), "cwd": str(source.resolve().parent)}
    values = {"results_dir": str(out)} | dict(parameters or {})
    draw = Call("bats_lab.sweeps.execute:run_notebook", arguments | {"parameters": values})
    export = Call("bats_lab.sweeps.notebooks:_export_html", {"notebook": str(executed), "page": str(page)})
    with Pool(1) as pool:
        for event in (event for call in (draw, export) for event in pool.run([call])):
            if event.kind == "failed":
                shown = f"; {failed} shows where" if failed.exists() else ""
                raise BatsLabError(f"The report could not be made: {event.text}{shown}.")
    return page


def _export_html(notebook: str, page: str) -> None:
    """Write an executed notebook as a page without code that loads nothing from the network."""
    import nbformat
    from nbconvert import HTMLExporter

    document: Any = nbformat.read(notebook, 4)  # type: ignore[no-untyped-call]
    first = next((cell.source for cell in document.cells if cell.cell_type == "markdown"), "")
    heading = first.splitlines()[0].removeprefix("# ") if first.startswith("# ") else Path(notebook).stem
    document.metadata["title"] = f"{heading} – {Path(notebook).parent.name}"
    for output in (output for cell in document.cells for output in cell.get("outputs", ())):
        about = output.get("metadata", {}).get("image/png", {})
        if "alt" in about:  # which the exporter's page leaves out
            source = f"data:image/png;base64,{output.data.pop('image/png')}"
            output.data["text/html"] = (
                f'<img src="{source}" width="{about["width"]}" alt="{html.escape(about["alt"])}">'
            )
    hidden = dict.fromkeys(("exclude_input", "exclude_input_prompt", "exclude_output_prompt"), True)
    addresses = dict.fromkeys(("mathjax_url", "require_js_url", "jquery_url", "mermaid_js_url"), "")
    where = {"metadata": {"path": str(Path(notebook).parent)}}
    body, _ = HTMLExporter(embed_images=True, **hidden, **addresses).from_notebook_node(document, resources=where)
    temporary = Path(page).with_suffix(".html.part")
    temporary.write_text(body, encoding="utf-8")
    os.replace(temporary, page)
