"""The training notebook under the plain papermill program, without a sweep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import papermill
import pytest

from bats_lab.config import Config, parameters
from bats_lab.runs.files import run_path
from bats_lab.sweeps.execute import declared_parameters
from bats_lab.sweeps.notebooks import notebook_path
from bats_lab.sweeps.training import notebook_config

TRAIN = notebook_path("10_train")
SMALL = {"n_train": 200, "n_test": 100, "hidden": 20, "threshold_output": 0.1, "epochs": 1}


def execute(folder: Path, **values: Any) -> subprocess.CompletedProcess[str]:
    """Call papermill in a folder, as a person does."""
    given = [word for name, value in values.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", str(TRAIN), "out.ipynb", *given]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)


def test_papermill_lists_every_parameter_with_type_and_text() -> None:
    listed = papermill.inspect_notebook(TRAIN)
    assert set(listed) == declared_parameters(json.loads(TRAIN.read_text())) > {p.name for p in parameters()}
    assert all(entry["help"] and entry["inferred_type_name"] != "None" for entry in listed.values())


@pytest.mark.filterwarnings("ignore:The output neurons of")
def test_notebook_trains_by_papermill_alone_and_says_where_results_are(tmp_path: Path) -> None:
    done = execute(tmp_path, delta_t="4ms", **SMALL)
    assert done.returncode == 0 and "unknown parameter" not in done.stderr
    path = run_path(tmp_path / "results" / "runs", Config(delta_t=0.004, **SMALL))
    assert path.is_file()
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    printed = ["".join(o["text"]) for cell in cells for o in cell.get("outputs", []) if o["output_type"] == "stream"]
    assert printed[0] == f"Results go into {path.parent.resolve()}\n" and printed[-1] == f"{path.resolve()}\n"


def test_misspelt_parameter_stops_the_notebook_before_it_trains(tmp_path: Path) -> None:
    done = execute(tmp_path, detla_t="4ms", **SMALL)
    assert done.returncode == 1 and [p.name for p in tmp_path.iterdir()] == ["out.ipynb"]
    assert "ValueError: 'detla_t' is no parameter of this notebook; did you mean delta_t?" in done.stderr


def test_training_loads_no_library_of_plots() -> None:
    [imports] = [c["source"] for c in json.loads(TRAIN.read_text())["cells"] if c["id"] == "imports"]
    script = "".join(imports) + "\nimport sys\nprint({'matplotlib', 'bokeh', 'holoviews', 'panel'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


OWN = "\n".join(f"{p.name}: object = None" for p in parameters()) + "\ndevice: str = 'cpu'"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["# Parameters\nseeds = 3\n"], "'seeds' is no parameter of this notebook; did you mean seed?"),
        (
            ["x = 1", "# Parameters\nxyzzy = 3\n"],
            "'xyzzy' is no parameter of this notebook; allowed are auto_threshold, batch_size,",
        ),
    ],
)
def test_name_that_papermill_has_set_must_be_declared(cells: list[str], message: str) -> None:
    names = Config().to_dict()
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        notebook_config(names | {"In": ["", OWN, *cells]})
    assert (
        notebook_config(names | {"In": ["", OWN, "# Parameters\ndevice = 'auto'\nseed = 0\n", "seeds = 3"]}) == Config()
    )
    assert notebook_config(names) == Config()
