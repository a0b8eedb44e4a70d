import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from runs import make_run

from bats_lab.config import Config
from bats_lab.errors import ResultsError
from bats_lab.runs.files import is_finished, open_run, run_path, save_run, validate_run
from bats_lab.runs.results import open_results

DEEP = {"hidden": (5, 4), "threshold_hidden": (0.2, 0.3), "max_spikes_hidden": (30, 30)}


def save(folder, **parameters):
    return save_run(make_run(**parameters), folder)


def config_of(run):
    return Config.from_dict(json.loads(run.config.item()))


def visible(folder):
    return sorted(p.name for p in Path(folder).iterdir() if not p.name.startswith("."))


def hidden(folder):
    return sorted(p.name for p in Path(folder).iterdir() if p.name.startswith(".") and p.name != ".cache")


# One run, one file


def test_a_run_comes_back_as_it_was_saved(tmp_path):
    run = make_run(delta_t=0.004, **DEEP)
    assert open_run(save_run(run, tmp_path / "new" / "folder")).identical(run)


def test_a_file_is_named_by_the_identity_of_its_run():
    config = Config(dataset="my data/größe 2.npz", delta_t=0.0005, seed=3, rule="merge")
    assert run_path("here", config) == Path("here") / f"run-gr__e_2-dt0.0005-seed3-merge-{config.identity}.nc"
    assert run_path("here", config) != run_path("here", config.replace(epsilon=1e-7))


def test_a_time_step_with_a_rounding_error_is_the_same_time_step(tmp_path):
    one, other = make_run(delta_t=0.03, seed=0), make_run(delta_t=0.03, seed=1)
    assert 0.1 + 0.2 != 0.3
    other = other.assign_coords(delta_t=other.delta_t.copy(data=[(0.1 + 0.2) / 10]))
    save_run(one, tmp_path)
    path = save_run(other, tmp_path)
    assert open_results(tmp_path).delta_t.values.tolist() == [0.03]
    other.to_netcdf(path, engine="netcdf4")  # as another program might write it
    assert open_results(tmp_path).delta_t.values.tolist() == [0.03] == open_run(path).delta_t.values.tolist()


def test_a_run_is_finished_when_its_file_has_all_epochs(tmp_path):
    run = make_run(epochs=3)
    assert not is_finished(tmp_path, config_of(run))
    path = save_run(run, tmp_path)
    assert is_finished(tmp_path, config_of(run))
    assert not is_finished(tmp_path, config_of(run).replace(batch_size=7))
    path.write_bytes(path.read_bytes()[:5000])
    assert not is_finished(tmp_path, config_of(run))


def test_a_run_that_broke_off_is_kept_but_is_not_finished(tmp_path):
    broken = make_run(n_epochs=1, epochs=2)
    path = save_run(broken, tmp_path)
    assert path.name.startswith("partial-") and open_run(path).identical(broken)
    assert not is_finished(tmp_path, config_of(broken))
    with pytest.raises(ResultsError, match="no finished run"):
        open_results(tmp_path)
    finished = save(tmp_path, epochs=2)
    assert visible(tmp_path) == [finished.name]


def test_a_full_run_of_table_1_takes_less_than_4_mb(tmp_path):
    path = save(tmp_path, n_pixels=784, hidden=(800,), keep_samples=5, delta_t=0.001)
    assert open_run(path).weights.sizes["pre"] == 800
    assert path.stat().st_size < 4e6


def test_a_missing_file_and_a_damaged_file_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results file"):
        open_run(tmp_path / "run-x.nc")
    (tmp_path / "run-x.nc").write_text("not a run")
    with pytest.raises(ResultsError, match=r"run-x\.nc cannot be read"):
        open_run(tmp_path / "run-x.nc")


# Whole or not at all


@pytest.mark.parametrize("where", ["os.replace", "os.fsync"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_save_that_breaks_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where, error):
    path = save(tmp_path)
    before = path.read_bytes()

    def broken(*args):
        raise error

    monkeypatch.setattr(where, broken)
    with pytest.raises(type(error)):
        save(tmp_path)
    monkeypatch.undo()
    assert path.read_bytes() == before and visible(tmp_path) == [path.name] and hidden(tmp_path) == []


def in_another_process(code, folder):
    """Run Python code there, with this folder's modules at hand."""
    start = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; folder = {str(folder)!r}\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)


def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(tmp_path):
    done = in_another_process(
        "import resource; from runs import make_run; from bats_lab.runs.files import save_run; run = make_run()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "save_run(run, folder)\n",
        tmp_path,
    )
    assert done.returncode == 1 and "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_process_killed_while_it_saves_leaves_no_run(tmp_path):
    done = in_another_process(
        "import os, signal; from runs import make_run; from bats_lab.runs.files import save_run\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_run(make_run(), folder)\n",
        tmp_path,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 1 and visible(tmp_path) == []
    path = save(tmp_path, seed=1)
    assert open_results(tmp_path).seed.values.tolist() == [1]
    assert len(hidden(tmp_path)) == 1, "it may be another process's, which is still writing"
    os.utime(tmp_path / hidden(tmp_path)[0], (0, 0))
    save(tmp_path, seed=2)
    assert hidden(tmp_path) == [] and path.exists()


# Many runs, one Dataset


def test_runs_become_one_dataset_with_nan_where_one_is_missing(tmp_path):
    runs = {(d, s): make_run(delta_t=d, seed=s) for d, s in [(0.002, 1), (0.0, 1), (0.002, 0)]}
    for run in runs.values():
        save_run(run, tmp_path)
    results = open_results(tmp_path)
    assert results.accuracy.dims == ("delta_t", "seed", "split", "epoch")
    assert results.delta_t.values.tolist() == [0.0, 0.002] and results.seed.values.tolist() == [0, 1]
    for (d, s), run in runs.items():
        np.testing.assert_array_equal(results.loss.sel(delta_t=d, seed=s).values, run.loss.values[0, 0, 0, 0])
        np.testing.assert_array_equal(results.weights.sel(delta_t=d, seed=s).values, run.weights.values[0, 0, 0, 0])
        assert open_run(results.path.sel(delta_t=d, seed=s).item()).identical(run)
    missing = results.sel(delta_t=0.0, seed=0)
    for name in ("accuracy", "confusion", "class_silent", "weights", "sent_times"):
        assert missing[name].isnull().all() and missing[name].dtype.kind == "f", name
    assert missing.config.item() == ""


def test_data_set_and_rule_are_dimensions_only_where_there_are_several(tmp_path):
    save(tmp_path, rule="merge")
    results = open_results(tmp_path)
    assert results.rule.item() == "merge" and results.rule.dims == () and results.dataset.item() == "mnist_small"
    save(tmp_path, rule="drop")
    save(tmp_path, dataset="fashion_mnist", rule="drop", threshold_hidden=0.2, max_spikes_hidden=30)
    results = open_results(tmp_path)
    assert results.accuracy.dims[:4] == ("dataset", "delta_t", "seed", "rule")
    assert results.rule.values.tolist() == ["drop", "merge"]


def test_what_follows_from_the_data_set_is_no_dimension(tmp_path):
    save(tmp_path)
    save(tmp_path, dataset="fashion_mnist", **DEEP)
    results = open_results(tmp_path)
    assert results.accuracy.dims == ("dataset", "delta_t", "seed", "split", "epoch")
    assert results.batch_size.to_series().to_dict() == {"fashion_mnist": 5, "mnist_small": 50}
    assert results.hidden.sel(dataset="fashion_mnist").item() == "5, 4"


def test_another_swept_parameter_is_a_dimension_so_no_run_hides_another(tmp_path):
    runs = {(rate, n): make_run(learning_rate=rate, n_train=n) for rate in (0.01, 0.001) for n in (20, None)}
    for run in runs.values():
        save_run(run, tmp_path)
    results = open_results(tmp_path)
    assert results.accuracy.dims[:4] == ("delta_t", "seed", "n_train", "learning_rate")
    assert results.learning_rate.values.tolist() == [0.001, 0.01] and results.n_train.values.tolist() == ["20", "all"]
    assert results.learning_rate.attrs["long_name"] == "step size of Adam"
    assert results.config.sel(learning_rate=0.01, n_train="all").item() == runs[0.01, None].config.item()


def test_parameters_swept_in_step_are_one_dimension(tmp_path):
    save(tmp_path, hidden=10)
    save(tmp_path, hidden=6)
    save(tmp_path, **DEEP)
    results = open_results(tmp_path)
    assert results.accuracy.dims[:3] == ("delta_t", "seed", "hidden")
    assert results.hidden.values.tolist() == ["5, 4", "6", "10"]
    assert results.threshold_hidden.dims == ("hidden",)


def test_layers_keep_their_order_and_are_nan_where_a_run_has_none(tmp_path):
    many = {"hidden": (3,) * 11, "threshold_hidden": (0.2,) * 11, "max_spikes_hidden": (30,) * 11}
    shallow, deep = make_run(seed=0), make_run(seed=1, **many)
    for run in (shallow, deep):
        save_run(run, tmp_path)
    results = open_results(tmp_path)
    assert results.layer.values.tolist() == deep.layer.values.tolist()
    first = results.sel(seed=0, hidden="6", delta_t=0)
    assert first.spike_count.sel(layer="hidden_2").isnull().all()
    expected = shallow.weights[0, 0, 0, 0].sel(layer="output").values
    np.testing.assert_array_equal(first.weights.sel(layer="output").values, expected)


def test_epochs_and_spikes_of_different_number_are_filled_with_nan(tmp_path):
    short, long = make_run(epochs=1, keep_samples=1), make_run(epochs=3, keep_samples=2)
    for run in (short, long):
        save_run(run, tmp_path)
    results = open_results(tmp_path).sel(epochs=1)
    np.testing.assert_array_equal(results.loss.values.squeeze()[:, :1], short.loss.values[0, 0, 0, 0])
    assert results.loss.sel(epoch=[2, 3]).isnull().all()
    assert results.spike_times.sel(sample=1).isnull().all()


def test_what_runs_keep_is_no_dimension(tmp_path):
    save(tmp_path)
    save(tmp_path, seed=1, keep_samples=0, keep_weights="none", test_batch_size=7)
    results = open_results(tmp_path)
    assert results.accuracy.dims == ("delta_t", "seed", "split", "epoch")
    assert results.accuracy.notnull().all()
    assert results.weights.sel(seed=0).notnull().any() and results.weights.sel(seed=1).isnull().all()


def test_of_two_runs_with_the_same_measures_the_one_that_keeps_more_counts(tmp_path):
    save(tmp_path, keep_samples=0, keep_weights="none")
    kept = save(tmp_path)
    with pytest.warns(UserWarning, match=f"the same run as {kept.name} and is left out"):
        results = open_results(tmp_path)
    assert results.path.item() == str(kept) and results.weights.notnull().any()


def test_whole_numbers_stay_whole_where_no_run_is_missing(tmp_path):
    save(tmp_path)
    save(tmp_path, seed=1)
    results = open_results(tmp_path)
    assert results.confusion.dtype == np.int64 and results.class_silent.dtype == bool


def test_results_can_be_saved_as_one_file_without_loss(tmp_path):
    for delta_t, seed in [(0.001, 0), (0.002, 1)]:
        save(tmp_path, delta_t=delta_t, seed=seed)
    results = open_results(tmp_path)
    results.to_netcdf(tmp_path / "all.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "all.nc") as copy:
        assert copy.confusion.isnull().sum() == results.confusion.isnull().sum() > 0
        xr.testing.assert_equal(copy.drop_vars("config"), results.drop_vars("config"))


def test_a_file_that_cannot_be_read_is_named_and_left_out(tmp_path):
    good, cut, foreign = save(tmp_path), save(tmp_path, seed=1), tmp_path / "run-foreign.nc"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    xr.Dataset({"x": 1}).to_netcdf(foreign, engine="netcdf4")
    with pytest.warns(UserWarning) as caught:
        results = open_results(tmp_path)
    assert sorted(str(w.message).split(" ")[0] for w in caught) == sorted([str(cut), str(foreign)])
    assert {w.filename for w in caught} == {__file__}
    assert results.path.item() == str(good)


def test_a_copy_of_a_run_is_named_and_left_out(tmp_path):
    path = save(tmp_path)
    shutil.copy(path, tmp_path / "run-zcopy.nc")
    with pytest.warns(UserWarning, match=rf"run-zcopy\.nc holds the same run as {path.name}"):
        assert open_results(tmp_path).path.item() == str(path)


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match="holds no finished run"):
        open_results(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder of results"):
        open_results(tmp_path / "nowhere")


# What is large stays on disk


def test_weights_are_read_only_when_asked_for(tmp_path):
    path = save(tmp_path)
    save(tmp_path, seed=1)
    results = open_results(tmp_path)
    path.unlink()
    assert results.accuracy.notnull().all()
    assert results.weights.sel(seed=1, layer="output").notnull().any()
    with pytest.raises(ResultsError, match="'weights' cannot be read from"):
        results.weights.sel(seed=0).load()


def test_any_selection_of_large_variables_gives_what_the_whole_gives(tmp_path):
    for seed, parameters in enumerate([{}, DEEP, {"delta_t": 0.002}]):
        save(tmp_path, seed=seed, **parameters)
    results = open_results(tmp_path)
    lazy, whole = results.weights, results.weights.copy().load()
    for select in (
        {"seed": 1},
        {"layer": ["output", "hidden_1"], "post": [3, 0]},
        {"seed": slice(None, None, -1), "pre": slice(2, 9, 3)},
        {"seed": xr.DataArray([0, 2], dims="run"), "delta_t": xr.DataArray([0.0, 0.002], dims="run")},
        {"seed": []},
    ):
        by_label = {k: v for k, v in select.items() if not isinstance(v, slice)}
        by_place = {k: v for k, v in select.items() if isinstance(v, slice)}
        part = lazy.sel(by_label).isel(by_place)
        xr.testing.assert_identical(part.load(), whole.sel(by_label).isel(by_place))
    xr.testing.assert_identical(lazy.transpose("pre", ...).load(), whole.transpose("pre", ...))
    xr.testing.assert_identical(pickle.loads(pickle.dumps(lazy)).load(), whole)


def test_threads_can_read_at_once(tmp_path):
    save(tmp_path)
    done = in_another_process(
        "from concurrent.futures import ThreadPoolExecutor; from bats_lab.runs.results import open_results\n"
        "results = open_results(folder)\n"
        "with ThreadPoolExecutor(6) as pool:\n"
        "    read = list(pool.map(lambda i: results.weights.values[..., 0, 0].tolist(), range(36)))\n"
        "print(len(read), len(set(map(str, read))))\n",
        tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "36 1\n"), done.stderr


def test_large_variables_can_be_left_out(tmp_path):
    save(tmp_path)
    small = open_results(tmp_path, large=False)
    assert "weights" not in small and "pre" not in small.coords and "accuracy" in small
    assert small.mean("seed").accuracy.notnull().all()


# The cache is a copy and nothing else


def test_results_are_the_same_without_the_cache(tmp_path):
    for seed, parameters in enumerate([{}, DEEP, {"keep_samples": 0, "keep_weights": "none"}]):
        save(tmp_path, seed=seed, **parameters)
    cached = open_results(tmp_path).load()
    shutil.rmtree(tmp_path / ".cache")
    xr.testing.assert_identical(open_results(tmp_path).load(), cached)
    for copy in (tmp_path / ".cache").iterdir():
        copy.write_bytes(b"damaged")
    xr.testing.assert_identical(open_results(tmp_path).load(), cached)


def test_a_replaced_run_is_read_anew(tmp_path):
    path = save(tmp_path)
    run = open_run(path)
    run["loss"] = run.loss.copy(data=run.loss.values + 1)
    run.to_netcdf(path, engine="netcdf4")
    np.testing.assert_array_equal(open_results(tmp_path).loss.values.ravel(), run.loss.values.ravel())


def test_a_removed_run_leaves_no_copy_behind(tmp_path):
    path = save(tmp_path)
    path.unlink()
    save(tmp_path, seed=1)
    assert len(list((tmp_path / ".cache").iterdir())) == 1


# The schema


def without_units(run):
    run["loss"].attrs.pop("units")
    return run


BREAKS = {
    "lack the variable 'accuracy'": lambda run: run.drop_vars("accuracy"),
    "lack the coordinate 'epoch'": lambda run: run.drop_vars("epoch"),
    "'acuracy' is no variable": lambda run: run.assign(acuracy=run.accuracy),
    "'learning_rate' is no coordinate": lambda run: run.assign_coords(learning_rate=0.1),
    "'loss' has the dimensions": lambda run: run.assign(loss=run.loss.transpose()),
    "'loss' is of type float32; it must be float64": lambda run: run.assign(
        loss=run.loss.astype("f4", keep_attrs=True)
    ),
    "'loss' has no attribute 'units'": without_units,
    "'seed' has 2 values": lambda run: run.pad(seed=(0, 1), mode="edge"),
    "'epoch' is \\[2\\]": lambda run: run.isel(epoch=[1]),
    "'seed' is 9, but 'config' says 0": lambda run: run.assign_coords(seed=run.seed.copy(data=[9])),
    "'config' does not hold": lambda run: run.assign(config=run.config.copy(data=run.version)),
    "'layer' is": lambda run: run.isel(layer=[1]),
}


@pytest.mark.parametrize("message", BREAKS)
def test_a_run_that_breaks_the_schema_is_refused(tmp_path, message):
    run = BREAKS[message](make_run())
    with pytest.raises(ResultsError, match=message):
        validate_run(run)
    with pytest.raises(ResultsError, match=message):
        save_run(run, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_keeps_to_the_schema_passes_without_a_warning():
    with warnings.catch_warnings(action="error"):
        validate_run(make_run(keep_samples=0, keep_weights="none"))
