import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import load_dataset
from bats_lab.errors import DataError, DivergedError
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import is_finished, open_run, save_run, validate_run
from bats_lab.runs.metrics import VARIABLES
from bats_lab.runs.results import open_results
from bats_lab.runs.training import train
from bats_lab.spikes.grid import discretize

SMALL = Config(n_train=200, n_test=100, hidden=30, epochs=2, delta_t=0.004, threshold_output=0.2, keep_weights="each")
TINY = SMALL.replace(n_train=50, n_test=20, epochs=1)
# Adam goes on by its momentum, each of its steps nearer to the largest float32.
WILD = TINY.replace(epochs=8, learning_rate=2.3e38, beta_1=0.3)

pytestmark = [
    pytest.mark.filterwarnings("ignore:The output neurons of:UserWarning"),
    pytest.mark.filterwarnings("ignore:No output neuron spiked:UserWarning"),
]


@pytest.fixture(scope="module")
def run():
    return run_experiment(SMALL, threads=1)


@pytest.fixture(scope="module")
def training():
    return train(SMALL, load_dataset("mnist_small", n_train=200, n_test=100), threads=1)


def one(dataset):
    return dataset.squeeze(("dataset", "delta_t", "seed", "rule"), drop=True)


def test_a_run_keeps_to_the_schema_and_has_every_variable(run):
    validate_run(run)
    optional = {"input_trains", "input_sent_trains", "validation_decision_time"}  # of events, and of samples held out
    assert set(run.data_vars) == set(VARIABLES) - optional


def test_a_run_measures_what_training_measured(run, training):
    last = training.records[-1]
    measured = one(run).sel(epoch=2)
    assert measured.accuracy.sel(split="test").item() == last.test.accuracy
    np.testing.assert_array_equal(measured.spike_count.sel(split="train"), last.train.spike_count)
    assert measured.n_samples.values.tolist() == [200, 100]
    assert one(run).confusion.sum().item() == 100


def test_weights_are_those_of_the_network(run, training):
    kept = one(run)
    for layer, weights in zip(kept.layer.values, training.network.weights, strict=True):
        n_post, n_pre = weights.shape
        np.testing.assert_array_equal(kept.weights.sel(layer=layer)[:n_post, :n_pre], weights)
        assert kept.weights.sel(layer=layer).notnull().sum() == weights.size
    xr.testing.assert_equal(kept.weights_by_epoch.sel(epoch=2, drop=True), kept.weights)
    np.testing.assert_allclose(np.sqrt((kept.weights_by_epoch**2).sum(["post", "pre"])), kept.weight_norm, rtol=1e-5)


def test_spikes_of_the_first_test_samples_are_kept(run, training):
    kept = one(run)
    data = load_dataset("mnist_small", n_train=1, n_test=5)
    assert kept.sample_label.values.tolist() == [data.class_names[y] for y in data.y_test]
    assert kept.spike_times.sizes["sample"] == 5 and kept.spike_times.notnull().any(["neuron", "spike"]).all()
    pixels = data.x_test.reshape(5, -1)
    np.testing.assert_array_equal(kept.input_times.notnull(), pixels > 0)
    np.testing.assert_allclose(kept.input_times, np.where(pixels > 0, 0.1 * (1 - pixels / 255), np.nan), rtol=1e-6)


def test_sent_times_are_the_next_tick_and_counts_decide(run):
    kept = one(run)
    sent = kept.sent_times.where(kept.sent_times.notnull(), np.inf).values.astype(float)
    times = kept.spike_times.where(kept.spike_times.notnull(), np.inf).values.astype(float)
    np.testing.assert_allclose(sent, discretize(times, 0.004), rtol=1e-5)
    counts = kept.sent_times.sel(layer="output").notnull().sum("spike").values[:, :10]
    names = kept.true_class.values[counts.argmax(axis=1)]
    expected = np.where(counts.any(axis=1), names, "none")
    assert kept.sample_prediction.values.tolist() == expected.tolist()


def test_a_run_says_where_it_comes_from(run):
    assert Config.from_dict(json.loads(run.config.item())) == SMALL
    assert run.backend.item() == "cpu" and run.device.item()
    assert run.data_hash.item() == load_dataset("mnist_small").data_hash
    age = datetime.now(UTC) - datetime.fromisoformat(run.started.item())
    assert timedelta(0) <= age < timedelta(hours=1)


def test_the_commit_is_that_of_the_checkout(run):
    root = Path(__file__).parents[1]
    done = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
    expected = done.stdout.strip() if (root / ".git").exists() and done.returncode == 0 else ""
    assert run.git_commit.item() in (expected, "") and re.fullmatch("[0-9a-f]{40}|", run.git_commit.item())


def test_a_run_goes_to_a_file_and_into_a_sweep(run, tmp_path):
    path = save_run(run, tmp_path)
    assert is_finished(tmp_path, SMALL) and open_run(path).identical(run)
    results = open_results(tmp_path)
    np.testing.assert_array_equal(results.accuracy.values, run.accuracy.values[0, ..., 0, :, :])
    np.testing.assert_array_equal(results.weights_by_epoch.values, run.weights_by_epoch.values[0, ..., 0, :, :, :, :])


def test_nothing_is_kept_where_nothing_is_asked_for(tmp_path):
    run = run_experiment(TINY.replace(keep_weights="none", keep_samples=0), threads=1)
    optional = {n for n, entry in VARIABLES.items() if not entry.required}
    assert optional & set(run.data_vars) == {"environment", "stopped_accuracy", "stopped_spike_count", "threshold"}
    assert open_run(save_run(run, tmp_path)).identical(run)


def test_more_samples_than_there_are_keep_all():
    run = run_experiment(TINY.replace(n_test=3, keep_samples=9), threads=1)
    assert run.sizes["sample"] == 3


def test_several_hidden_layers_of_different_size_are_padded(tmp_path):
    deep = TINY.replace(hidden=(20, 8), threshold_hidden=(0.2, 0.2), max_spikes_hidden=(30, 3), delta_t=0)
    run = run_experiment(deep, threads=1)
    assert one(run).weights.notnull().sum(["post", "pre"]).values.tolist() == [20 * 784, 8 * 20, 10 * 8]
    assert one(run).spike_times.sel(layer="hidden_2").notnull().sum("spike").max() <= 3
    xr.testing.assert_equal(run.spike_times, run.sent_times.rename("spike_times"))
    assert open_run(save_run(run, tmp_path)).identical(run)


def test_callbacks_hear_of_epochs_and_samples():
    epochs, samples = [], []
    run_experiment(TINY, threads=1, on_epoch=epochs.append, on_batch=lambda done, total: samples.append((done, total)))
    assert [record.epoch for record in epochs] == [1]
    assert samples and all(done <= total == 50 for done, total in samples)


def test_a_target_out_of_reach_is_warned_of_before_training():
    with pytest.warns(UserWarning, match=r"target of 15 spikes cannot be reached.*10 ticks"):
        run_experiment(TINY.replace(delta_t=0.02), threads=1)


def test_dead_classes_are_named():
    silent = "No output neuron spiked in the first epoch.*from layer hidden_1 on. What helps: auto_threshold"
    with (
        pytest.warns(UserWarning, match="10 of 10 classes did not spike .*: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        pytest.warns(UserWarning, match=silent),
    ):
        run = run_experiment(TINY.replace(threshold_hidden=1e6), threads=1)
    assert run.class_silent.all() and (run.confusion.sel(predicted_class="none").sum() == 20)
    assert run.spike_times.isnull().all() and (run.sample_prediction == "none").all()


def test_divergence_keeps_what_was_measured_before(tmp_path):
    with pytest.raises(DivergedError) as caught:
        run_experiment(WILD, threads=1)
    kept = caught.value.dataset
    assert kept.sizes["epoch"] == caught.value.epoch - 1 > 0
    validate_run(kept)
    assert save_run(kept, tmp_path).name.startswith("partial-") and not is_finished(tmp_path, WILD)


def test_divergence_in_the_first_epoch_keeps_nothing():
    with pytest.raises(DivergedError, match="epoch 1") as caught:
        run_experiment(WILD.replace(batch_size=5), threads=1)
    assert caught.value.dataset is None


def test_a_data_set_that_is_not_there_is_an_error_of_the_data(tmp_path):
    with pytest.raises(DataError):
        run_experiment(TINY.replace(dataset=str(tmp_path / "mine.npz")))
