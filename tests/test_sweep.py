"""A sweep, with real Papermill executions of tiny trainings."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import psutil
import pytest
from sweeping import SMALL, TRAIN, all_ended, start_sweep, training_notebook, wait_for

from bats_lab.config import Config
from bats_lab.data.datasets import load_dataset
from bats_lab.errors import BatsLabError, DataError, DeviceError
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import is_finished, open_run, run_path, save_run
from bats_lab.runs.results import open_results
from bats_lab.sweeps.execute import STATUS, working_files
from bats_lab.sweeps.folder import FolderLock
from bats_lab.sweeps.grid import expand_grid
from bats_lab.sweeps.notebooks import notebook_path, prepare_notebooks
from bats_lab.sweeps.plan import _cores, _groups
from bats_lab.sweeps.progress import Progress
from bats_lab.sweeps.sweep import Execution, Run, run_sweep
from bats_lab.sweeps.training import checkpoint_path, describe_epoch, train_group_into

ROOT = Path(__file__).parents[1]
# the grid


def test_grid_holds_every_combination_with_the_seed_slowest() -> None:
    grid = expand_grid({"delta_t": [0, 0.004], "rule": ["drop", "graded"], "epochs": 2}, seeds=2)
    assert [(c.seed, c.delta_t, c.rule) for c in grid[:3]] == [(0, 0, "drop"), (0, 0, "graded"), (0, 0.004, "drop")]
    assert len(grid) == 8 and {c.epochs for c in grid} == {2}


def test_grid_takes_a_list_of_lists_for_a_parameter_that_is_a_list() -> None:
    assert [c.hidden for c in expand_grid({"hidden": [[30], [40]]})] == [(30,), (40,)]
    two = expand_grid({"hidden": [30, 40], "threshold_hidden": [0.2, 0.3], "max_spikes_hidden": [9, 8]})
    assert [c.hidden for c in two] == [(30, 40)]


def test_grid_leaves_out_repetitions() -> None:
    assert len(expand_grid({"delta_t": np.array([0.3e-3, 0.1e-3 + 0.2e-3])}, seeds=[4, 4])) == 1


@pytest.mark.parametrize(
    ("values", "seeds", "message"),
    [
        ({"detla_t": [0]}, None, "'detla_t' is no parameter of a run; did you mean delta_t"),
        ({"delta_t": [0, -1]}, None, "delta_t is -1.0"),
        ({"rule": ["drop", "dorp"]}, 2, "rule is 'dorp'"),
        ({"delta_t": []}, None, "delta_t has no values"),
        ({"seed": 1}, 3, "seed and seeds"),
        ({}, 0, "seeds is 0"),
        ({}, 10**11, "seeds is 100000000000; a sweep has at most 100000 runs."),
        ({"delta_t": [0] * 1000, "seed": range(1000)}, None, "The values given make 1000000 combinations"),
    ],
)
def test_bad_grid_is_refused_in_one_sentence(values: dict[str, Any], seeds: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        expand_grid(values, seeds=seeds)


@pytest.mark.parametrize(
    ("values", "options", "error"),
    [
        ({"epochs": [1, 0]}, {}, ValueError),
        ({"n_train": 10**6}, {}, ValueError),
        ({"dataset": "mnits"}, {}, ValueError),
        ({"dataset": "missing.npz"}, {}, DataError),
        ({}, {"jobs": -1}, ValueError),
        ({}, {"timeout": 0.0}, ValueError),
        ({}, {"side_by_side": -1}, ValueError),
        ({}, {"device": "abacus"}, DeviceError),
        ({}, {"notebook": "no.ipynb"}, FileNotFoundError),
        ([], {}, ValueError),
    ],
)
def test_nothing_is_written_when_something_is_wrong_before_the_start(
    tmp_path: Path, values: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run_sweep(values, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


# sweeps


def test_runs_leave_results_and_executed_notebooks(swept: Any) -> None:
    report, _ = swept
    assert [o.status for o in report.outcomes] == ["finished", "failed", *["finished"] * 3]
    results = open_results(report.out)
    assert results["accuracy"].sel(split="test").notnull().all()
    assert results["delta_t"].values.tolist() == [0, 0.004]
    for outcome in report.finished:
        notebook = nbformat.read(outcome.notebook, 4)
        injected = next(c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", []))
        assert f"delta_t = {outcome.config.delta_t}" in injected.source
        assert str(run_path(report.out, outcome.config)) in notebook.cells[-1].outputs[0].text
    assert not list(report.out.glob("notebooks/*.running.ipynb"))


def test_failed_run_is_reported_with_reason_and_traceback_and_stops_no_other(swept: Any) -> None:
    report, _ = swept
    (failed,) = report.failed
    assert failed.label == "delta_t 0.0, learning_rate 1e+39, seed 0"
    assert failed.reason.startswith("DivergedError: Training diverged in epoch 1:") and "hidden_1" in failed.reason
    assert failed.notebook.name.endswith(".failed.ipynb")
    outputs = [o for c in nbformat.read(failed.notebook, 4).cells for o in c.get("outputs", [])]
    assert any(o.output_type == "error" and "DivergedError" in "".join(o.traceback) for o in outputs)
    assert not is_finished(report.out, failed.config)


def test_progress_tells_what_is_done_running_failed_and_left(swept: Any) -> None:
    _, states = swept
    assert [s["stage"] for s in states if s["stage"] == "compiling"]
    assert max(len(s["running"]) for s in states) == 2
    assert states[0]["total"] == 5 and states[0]["seconds_left"] is None
    last = states[-1]
    assert (last["stage"], last["finished"], last["failed"], last["running"]) == ("over", 4, 1, {})
    assert last["seconds_left"] == 0
    assert any(s["last_line"].startswith("epoch 2/2: test accuracy") for s in states)
    assert any(line.startswith("epoch 1/2: test accuracy") for s in states for line in s["running"].values())


def test_finished_runs_are_not_repeated(swept: Any) -> None:
    report, _ = swept
    before = {path: path.stat().st_mtime_ns for path in report.out.rglob("run-*")}
    again = run_sweep([o.config for o in report.finished], report.out, progress=False)
    assert [o.status for o in again.outcomes] == ["skipped"] * 4
    assert {path: path.stat().st_mtime_ns for path in report.out.rglob("run-*")} == before


@pytest.mark.filterwarnings("ignore:The output neurons of")
def test_runs_on_own_images_are_repeated_once_these_were_replaced(tmp_path: Path) -> None:
    data = load_dataset("mnist_small", n_train=200, n_test=100)
    mine, out = tmp_path / "mine.npz", tmp_path / "out"
    config = Config(**SMALL | {"dataset": str(mine), "delta_t": 0.004})
    notebook = training_notebook(tmp_path / "train.ipynb", TRAIN)

    def sweep() -> tuple[str, str]:
        [outcome] = run_sweep([config], out, jobs=1, notebook=notebook, progress=False).outcomes
        return outcome.status, str(open_results(out)["data_hash"].values.item())

    labels = {"y_train": data.y_train, "y_test": data.y_test}
    np.savez(mine, x_train=data.x_train, x_test=data.x_test, **labels)
    first = save_run(run_experiment(config, threads=1), out)
    assert sweep() == ("skipped", open_run(first)["data_hash"].item())
    np.savez(mine, x_train=255 - data.x_train, x_test=255 - data.x_test, **labels)
    assert sweep() == ("finished", load_dataset(str(mine)).data_hash)


def test_runs_take_no_more_threads_than_numba_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert _cores() == 1
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    assert _cores() == len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def test_two_sweeps_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    message = f"Another sweep is at work in {re.escape(str(tmp_path))} .process {os.getpid()}.;"
    with FolderLock(tmp_path), pytest.raises(BatsLabError, match=message):
        run_sweep(SMALL, tmp_path)


def test_notebook_that_saves_nothing_counts_as_failed(tmp_path: Path) -> None:
    idle = training_notebook(tmp_path / "idle.ipynb")
    report = run_sweep(SMALL, tmp_path / "out", notebook=idle, jobs=1, progress=False)
    assert [o.reason for o in report.failed] == ["the notebook ran to its end but saved no results"]
    assert [p.name for p in tmp_path.glob("out/notebooks/*")] == [report.failed[0].notebook.name]  # type: ignore[union-attr]


# What a sweep is told of its runs


@pytest.mark.filterwarnings("ignore:.*The output neurons of")
def test_training_tells_epochs_and_failures_as_lines_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [Config(**SMALL), Config(**SMALL, learning_rate=1e39)]
    train_group_into(configs, tmp_path, threads=1)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(STATUS, str(tmp_path / "status.jsonl"))
    lines: list[str] = []
    train_group_into(
        configs, tmp_path, threads=1, on_epoch=lambda i, record: lines.append(describe_epoch(record, configs[i]))
    )
    epoch, failed = map(json.loads, (tmp_path / "status.jsonl").read_text().splitlines())
    assert epoch == {"event": "epoch", "run": 0, "text": lines[0], "epoch": 1} and len(lines) == 1
    assert (failed["event"], failed["run"]) == ("failed", 1)
    assert failed["text"].startswith("DivergedError: Training diverged in epoch 1:")


def test_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    run = Run(Config(), "label", tmp_path / "run.ipynb")
    with FolderLock(tmp_path / "locked") as lock:
        execution = Execution([run], lambda config: False, 1, 1, lambda state: None, lock)
    line = json.dumps({"event": "epoch", "run": 0, "text": "epoch 1/2: …"}).encode() + b"\n"
    told = []
    for content in (b"", line[:9], line, line + line[:9], line + line.replace(b"1/2", b"2/2")):
        working_files(run.notebook).status.write_bytes(content)
        execution._read_status([run])
        told.append(execution.state.running.get("label"))
    assert told == [None, None, "epoch 1/2: …", "epoch 1/2: …", "epoch 2/2: …"]


def test_network_that_cannot_learn_is_told_of_once_in_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = tmp_path / "run.ipynb"
    monkeypatch.setenv(STATUS, str(working_files(notebook).status))
    configs = [Config(**SMALL | {"threshold_hidden": 1e6, "seed": seed}) for seed in (0, 1)]
    with pytest.warns(UserWarning) as said:
        train_group_into(configs, tmp_path, threads=1)
    alone = [str(w.message) for w in said if "No output neuron spiked in the first epoch" in str(w.message)]
    assert [text[:7] for text in alone] == ["Run 0: ", "Run 1: "]
    runs = [Run(config, f"seed {config.seed}", notebook) for config in configs]
    no_output = "^seed 0: No output neuron spiked in the first epoch"
    with pytest.warns(UserWarning, match=no_output) as told, FolderLock(tmp_path / "locked") as lock:
        Execution(runs, lambda config: False, 2, 1, lambda state: None, lock)._read_status(runs)
    assert len(told) == 1


# runs side by side


@pytest.mark.filterwarnings("ignore:The output neurons of")
def test_runs_side_by_side_share_a_notebook_and_leave_their_own_results(tmp_path: Path) -> None:
    configs = expand_grid({**SMALL, "delta_t": [0, 0.004]})
    configs.insert(1, configs[0].replace(learning_rate=1e39))
    lines: list[str] = []
    report = run_sweep(
        configs, tmp_path, side_by_side=9, progress=lambda state: lines.extend([state.last_line] if state.last else [])
    )
    assert [o.status for o in report.outcomes] == ["finished", "failed", "finished"]
    assert report.failed[0].reason.startswith("DivergedError: Training diverged in epoch 1:")
    assert len({o.notebook for o in report.outcomes}) == len(list(tmp_path.glob("notebooks/*"))) == 1
    assert lines[0].startswith("epoch 1/1: test accuracy") and lines[1] == "" and lines[2] != lines[0]
    for config in (configs[0], configs[2]):
        run, alone = open_run(run_path(tmp_path, config)), run_experiment(config, threads=1)
        for name in ("accuracy", "loss", "spike_count", "weights"):
            np.testing.assert_array_equal(run[name], alone[name])


def test_runs_of_different_shape_are_not_put_side_by_side() -> None:
    grid = expand_grid({**SMALL, "hidden": [[20], [30]], "delta_t": [0, 0.004]}, seeds=2)
    groups = _groups(grid, 3)
    assert sorted(i for group in groups for i in group) == list(range(8)) and max(map(len, groups)) == 3
    assert all(len({grid[i].hidden for i in group}) == 1 for group in groups)
    assert _groups(grid, 1) == [[i] for i in range(8)]


def test_runs_of_a_group_that_failed_are_taken_up_again_in_smaller_groups(tmp_path: Path) -> None:
    lost = "if side_by_side: raise RuntimeError('all is lost')"
    notebook = training_notebook(tmp_path / "train.ipynb", lost, TRAIN)
    configs, out = expand_grid(SMALL, seeds=2), tmp_path / "out"
    report = run_sweep(configs, out, side_by_side=2, jobs=1, notebook=notebook, progress=False)
    assert [o.status for o in report.outcomes] == ["finished", "finished"]
    assert len(list(out.glob("notebooks/*"))) == 2 and not list(out.glob("notebooks/*.failed.ipynb"))


def test_run_whose_device_failed_is_tried_once_more(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from bats_lab.errors import DeviceError
tries = Path(results_dir) / f"tries-{seed}"
n = len(tries.read_text()) if tries.exists() else 0
if n < 1 + seed:  # seed 0 fails once, seed 1 twice
    tries.write_text("x" * (n + 1))
    raise DeviceError("The GPU failed: it is gone")
"""
    notebook = training_notebook(tmp_path / "train.ipynb", code, TRAIN)
    report = run_sweep(expand_grid(SMALL, seeds=2), tmp_path / "out", jobs=1, notebook=notebook, progress=False)
    assert [o.status for o in report.outcomes] == ["finished", "failed"]
    assert [o.reason for o in report.outcomes] == ["", "DeviceError: The GPU failed: it is gone"]


# being stopped, and going on


@pytest.mark.filterwarnings("ignore:The output neurons of")
def test_killed_sweep_leaves_no_process_and_goes_on_from_its_checkpoint_to_the_same_numbers(tmp_path: Path) -> None:
    config = Config(**SMALL | {"epochs": 60, "delta_t": 0.004})
    state = checkpoint_path(tmp_path, config)
    options = ["--epochs=60", "--delta-t=4ms", "--checkpoint", "--threads=1"]
    with start_sweep(tmp_path, *options) as process:
        wait_for(state.exists, process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert all_ended(children)
    assert not is_finished(tmp_path, config)
    assert len(list(tmp_path.glob("notebooks/*.running.ipynb"))) == 1
    with np.load(state) as kept:
        before = json.loads(str(kept["records"]))
    (state.parent / f".{state.name}.abcdefgh.part").write_bytes(b"half a state")  # what a kill in mid-write leaves

    report = run_sweep([config], tmp_path, checkpoint=True, threads=1, progress=False)
    assert [o.status for o in report.outcomes] == ["finished"]
    run = open_run(run_path(tmp_path, config)).squeeze()
    assert run["train_seconds"].values[: len(before)].tolist() == [r["train_seconds"] for r in before]
    whole = run_experiment(config, threads=1).squeeze()
    for name in ("accuracy", "loss", "spike_count", "weights"):
        np.testing.assert_array_equal(run[name], whole[name])
    assert [p.name for p in tmp_path.iterdir() if p.name == "checkpoints"] == []
    assert not list(tmp_path.glob("notebooks/*.running.ipynb"))


def test_ctrl_c_leaves_no_failure_of_a_run_that_it_ended(tmp_path: Path) -> None:
    config = Config(**SMALL | {"dataset": "mnist_small", "epochs": 100000})
    running = tmp_path / "notebooks" / f"{run_path(tmp_path, config).stem}.running.ipynb"

    def interrupt(progress: Progress) -> None:
        if progress.running and running.exists():
            # As a worker does whose kernel has ended before itself.
            shutil.copy(running, str(running).replace(".running.", ".failed."))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep([config], tmp_path, jobs=1, device="cpu", progress=interrupt)
    assert not list(tmp_path.rglob("*.ipynb"))


# notebooks


def test_notebooks_are_used_in_place_in_a_checkout_and_copied_on_request(tmp_path: Path) -> None:
    assert prepare_notebooks() == ROOT
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "10_train.ipynb").write_text("changed by its user")
    assert prepare_notebooks(tmp_path) == tmp_path
    copied = sorted(p.name for p in (tmp_path / "notebooks").iterdir())
    assert copied == sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb"))
    assert (tmp_path / "notebooks" / "10_train.ipynb").read_text() == "changed by its user"


def test_installed_package_without_its_notebooks_says_so() -> None:
    with pytest.raises(FileNotFoundError, match="no notebook '99_none'"):
        notebook_path("99_none")
