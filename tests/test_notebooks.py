"""Every notebook is executed, as its users and the sweep do it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from deployments import make_deployment, save_deployment
from runs import make_run

from bats_lab.runs.files import save_run
from bats_lab.sweeps.notebooks import make_report, notebook_path
from bats_lab.sweeps.pool import Call, Pool

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

#: The parameters with which each notebook is executed here, small; RESULTS stands for the folder of a small real sweep.
RESULTS = "folder of a small sweep"
#: … of one that is yet to be made,
NEW = "folder that is not there yet"
#: … and of a made-up deployment.
DEPLOYED = "folder of a deployment"
PARAMETERS: dict[str, dict[str, Any]] = {
    "00_tour": {"results_dir": RESULTS, "n_train": 100},
    "01_spike_times": {},
    "02_time_step": {},
    "03_learning_through_spikes": {"n_updates": 3},
} | {
    name: {"results_dir": RESULTS}
    for name in (
        *("21_rasters", "22_weights", "23_tradeoff", "24_latency", "25_digit"),
        "34_estimators",
    )
}
PARAMETERS |= {
    "11_sweep": {
        **{"results_dir": NEW, "delta_t": "4ms", "seeds": "1", "epochs": "1", "start": True},
        "more": "--n-train 200 --n-test 100 --hidden 20 --threshold-output 0.1",
    },
    # The other data sets' pages are made by the study's own tests.
    "30_thesis": {"dataset": "fashion_mnist", "results_dir": RESULTS},
    "26_chip": {"results_dir": DEPLOYED},
    # Its spikes are those of the results that ship, found from the notebook's own folder.
    "35_from_training_to_chip": {"results_dir": DEPLOYED},
    "36_any_network": {
        "results_dir": RESULTS,
        "n_samples": 3,
        "n_autopsies": 1,
        "clocks": [0.004],
        "platforms": "loihi",
    },
}

#: Notebooks that are executed in another way, and by which test.
ELSEWHERE = {
    "10_train": "test_sweep::test_runs_leave_results_and_executed_notebooks",
    "33_why_training_collapses": "test_collapse::test_collapse_is_run_drawn_and_answered_by_one_command",
    "37_time_in_data": "test_timing::test_study_is_run_drawn_and_taken_up_by_one_command",
    "27_search": "test_search::test_report_of_a_search_has_its_front_and_what_mattered",
    "20_report": "test_notebooks::test_report_holds_its_figures_and_needs_no_network",
}

FIGURES = (
    "accuracy_over_delta_t",
    "accuracy_over_epochs",
    "spike_count_over_delta_t",
    "spike_count_over_epochs",
    "confidence",
    "confidence_over_delta_t",
    "tradeoff",
    "collisions",
)


def test_every_notebook_is_executed_by_a_test() -> None:
    assert {path.stem for path in NOTEBOOKS} == {*PARAMETERS, *ELSEWHERE}
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        assert f"def {test}(" in (Path(__file__).parent / f"{file}.py").read_text()


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """A worker for all notebooks; each has a kernel of its own."""
    with Pool(1) as pool:
        yield pool


def execute(pool: Pool, name: str, out: Path, parameters: dict[str, Any]) -> None:
    arguments = {"source": str(notebook_path(name)), "out": str(out), "parameters": parameters}
    *_, last = pool.run([Call("bats_lab.sweeps.execute:run_notebook", arguments)])
    assert last.kind == "finished", last.text


@pytest.mark.parametrize("name", PARAMETERS)
def test_notebook_runs_to_its_end(name: str, pool: Pool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folders = {RESULTS: "small_results", DEPLOYED: "deployed"}
    parameters = {
        key: str(request.getfixturevalue(folders[value])) if isinstance(value, str) and value in folders else value
        for key, value in PARAMETERS[name].items()
    }
    if parameters.get("results_dir") == NEW:
        parameters["results_dir"] = str(tmp_path / "new")
    execute(pool, name, tmp_path / "out.ipynb", parameters)
    if name == "11_sweep":
        assert "1 of 1 runs done" in (tmp_path / "out.ipynb").read_text()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a made-up deployment; figures of all rules and seeds are drawn by tests of plots."""
    folder = tmp_path_factory.mktemp("deployed")
    save_deployment(make_deployment(seeds=(0,)).sel(rule=["drop", "graded"]), folder)
    return folder


@pytest.mark.parametrize("name", ["26_chip", "35_from_training_to_chip"])
def test_notebook_of_a_chip_says_what_is_missing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process and not in a kernel of its own, which takes long to start."""
    names: dict[str, Any] = {}
    for cell in nbformat.read(notebook_path(name), 4).cells:
        if cell.cell_type == "code":
            exec(cell.source.replace("explore.load_bokeh()", ""), names)  # which needs a kernel
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"results_dir": str(tmp_path), "spikes_dir": str(tmp_path)}
    assert "There is no deployment yet" in capsys.readouterr().out and names["parts"] == {}


NAME = "<img src=x onerror=alert(1)>[x](javascript:alert(2))$_$.npz"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of made-up runs of two rules, of which one is missing, on data with a program for a name."""
    folder = tmp_path_factory.mktemp("report")
    for delta_t, seed, rule in [(0.0, 0, "drop"), (0.004, 0, "drop"), (0.004, 1, "drop"), (0.004, 0, "graded")]:
        save_run(make_run(delta_t=delta_t, seed=seed, rule=rule, dataset=NAME), folder)
    return make_report(folder)


def test_report_holds_its_figures_and_needs_no_network(page: Path) -> None:
    text = page.read_text()
    assert page.name == "report.html" and text.count('src="data:image/png;base64,') == len(FIGURES)
    # A link that a reader may click is no request; what a browser loads by itself is.
    loaded = re.findall(
        r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)\s*=\s*["']?((?:https?:)?//[^"'>\s]+)""", text
    )
    assert loaded == [] and not re.search(r"@import|url\(['\"]?(?:https?:)?//", text)
    assert "Traceback" not in text


def test_report_shows_the_name_of_a_data_set_as_text(page: Path) -> None:
    text = page.read_text()
    assert "<img src=x" not in text and 'href="javascript' not in text
    wide = "\N{FULLWIDTH DOLLAR SIGN}"
    assert f"4 runs on &lt;img src=x onerror=alert(1)&gt;[x](javascript:alert(2)){wide}_{wide};" in text


def test_report_has_a_title_and_a_text_for_each_figure(page: Path) -> None:
    text = page.read_text()
    assert f"<title>What the time step did – {page.parent.name}</title>" in text
    alternatives = re.findall(r'<img [^>]*alt="([^"]*)"', text)
    assert len(alternatives) == len(FIGURES) and all(" over " in alternative for alternative in alternatives)


def test_report_leaves_each_figure_as_a_file_and_the_executed_notebook(page: Path) -> None:
    folder = page.parent
    assert {p.name for p in (folder / "figures").iterdir()} == {f"{n}.{s}" for n in FIGURES for s in ("pdf", "png")}
    executed = nbformat.read(folder / "report.ipynb", 4)
    printed = "".join(o.text for o in executed.cells[-1].outputs)
    assert printed == f"Figures are in {(folder / 'figures').resolve()}\n"
    assert not list(folder.glob("*.running.ipynb")) and not list(folder.glob("*.part"))


def test_report_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"There are no results in .*; a report needs at least one finished run\."
    ):
        make_report(tmp_path)
    assert not list(tmp_path.iterdir())
