"""Networks trained on a clock drawn for each batch, or with another rule in the output layer; what compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pictures import draw
from trainings import assert_same_passes

from bats_lab import collapse
from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.runs.files import open_dataset
from bats_lab.runs.training import Training, _noise, train, train_group
from bats_lab.studies.collapse import report, trained
from bats_lab.studies.collapse.trained import with_continuous

SMALL = Config(n_train=60, n_test=30, hidden=20, threshold_output=0.1, epochs=2, batch_size=25, delta_t=0.02)
BUSY = SMALL.replace(weight_scale=4.0, epochs=1)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_dataset("mnist_small", n_train=60, n_test=30)


def weights(training: Any) -> np.ndarray:
    assert isinstance(training, Training)
    return training.network.weights[0]


@pytest.mark.parametrize("changes", [{}, {"error_counts": "merge"}], ids=str)
def test_one_clock_is_the_runs_own(digits: ImageData, changes: dict[str, Any]) -> None:
    config = SMALL.replace(**changes)
    own = train(config, digits, device="cpu")
    drawn = train(config, digits, device="cpu", clocks=[config.delta_t])
    np.testing.assert_array_equal(weights(drawn), weights(own))
    for a, b in zip(drawn.records, own.records, strict=True):  # added up batch by batch, so but for rounding
        for name in ("accuracy", "loss", "spike_count", "dropped", "spike_delay", "confidence", "decision_time"):
            np.testing.assert_allclose(getattr(a.train, name), getattr(b.train, name), rtol=1e-12, err_msg=name)
        np.testing.assert_equal([f.tolist() for f in a.train.fired], [f.tolist() for f in b.train.fired])
        assert_same_passes(a.test, b.test)


def test_clock_is_drawn_anew_for_each_batch_and_seed(digits: ImageData) -> None:
    configs = [SMALL.replace(seed=seed) for seed in (0, 1)]
    clocks = (0.0, 0.02)
    both = train_group(configs, digits, device="cpu", clocks=clocks)
    for config, training in zip(configs, both, strict=True):
        alone = train(config, digits, device="cpu", clocks=clocks)
        np.testing.assert_array_equal(weights(training), weights(alone))
        for step in clocks:
            other = train(config, digits, device="cpu", clocks=[step])
            assert abs(weights(training) - weights(other)).max() > 1e-3


def test_random_rounding_differs_from_batch_to_batch(digits: ImageData) -> None:
    config = SMALL.replace(estimator="stochastic")
    assert _noise(config, 1, 0) != _noise(config, 1, 1) and _noise(SMALL, 1, 0) == 0
    first, again = (weights(train(config, digits, device="cpu", clocks=[0.02])) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, weights(train(config, digits, device="cpu")))  # whose key is the epoch's


def test_progress_of_drawn_clocks_is_told(digits: ImageData) -> None:
    told: list[tuple[int, int]] = []
    train(BUSY, digits, device="cpu", clocks=[0.0, 0.02], on_batch=lambda done, total: told.append((done, total)))
    assert told == [(25, 60)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "x.npz"}, r"clocks are \[0.02\]; with them there is no checkpoint"),
        ({"errors_from": SMALL}, "errors are the run's own"),
        ({"device": "emulated"}, "they are drawn on the CPU only"),
        ({"clocks": [0.5]}, "delta_t is 0.5 s; it must be at most the duration"),
    ],
)
def test_clocks_that_cannot_be_drawn_are_refused(digits: ImageData, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(SMALL, digits, **{"device": "cpu", "clocks": [0.02]} | options)


def test_output_layer_has_its_own_rule_and_no_other_layer(backend: str, digits: ImageData) -> None:
    mixed = train(BUSY, digits, device=backend, output_rule="merge")
    same, plain = (train(BUSY, digits, device=backend, output_rule=rule) for rule in ("drop", ""))
    np.testing.assert_array_equal(weights(same), weights(plain))
    assert not np.array_equal(weights(mixed), weights(plain))
    for passed in (mixed.records[0].train, mixed.records[0].test):
        assert passed.dropped[0] > 0 and passed.merged[0] == 0
        assert passed.dropped[1] == 0 and passed.merged[1] > 0


def test_output_that_sends_later_than_hidden_layers_is_refused(digits: ImageData) -> None:
    with pytest.raises(ValueError, match="output_rule is 'defer' and rule 'drop'; both may send later, or neither"):
        train(BUSY, digits, device="cpu", output_rule="defer")


# The experiments


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "short_run", lambda _, **changes: BUSY.replace(**changes | {"n_train": 60}))


def test_every_clock_holds_each_network_against_one_that_knows_all(
    tiny: None, tmp_path: Path, digits: ImageData
) -> None:
    told: list[str] = []
    options: dict[str, Any] = {"clocks": (0.0, 0.02), "device": "cpu", "report": told.append}
    path = collapse.every_clock(tmp_path, "mnist_small", digits, seeds=1, **options)
    found = open_dataset(path)
    assert len(told) == 2 * 3 and "[1/6] mnist_small: rule graded, seed 0, training drawn" in told[0]
    for training, step, clocks in (("continuous", 0.0, ()), ("own", 0.02, ()), ("drawn", 0.02, (0.0, 0.02))):
        rule = "graded" if step else "drop"
        wanted = train(BUSY.replace(rule=rule, delta_t=step), digits, device="cpu", clocks=clocks).records[-1]
        point = {"rule": "graded", "seed": 0, "training": training, "delta_t": step}
        assert found["accuracy"].sel(point).item() == wanted.test.accuracy
    exact = with_continuous(found).sel(delta_t=0.0)
    assert (exact.sel(training="own") == exact.sel(training="continuous")).all()
    told.clear()
    collapse.every_clock(tmp_path, "mnist_small", digits, seeds=2, **options)
    assert len(told) == 6 and all("seed 1" in line for line in told)  # what is there is kept
    known = open_dataset(path)["accuracy"].sel(seed=0)
    assert all({"units", "long_name"} <= variable.attrs.keys() for variable in open_dataset(path).variables.values())
    xr.testing.assert_equal(known, found["accuracy"].sel(seed=0).transpose(*known.dims).reindex_like(known))


def test_one_layer_trains_each_pair_of_rules(tiny: None, tmp_path: Path, digits: ImageData) -> None:
    found = open_dataset(collapse.one_layer(tmp_path, "mnist_small", digits, seeds=1, device="cpu"))
    assert found["accuracy"].notnull().all() and found["accuracy"].size == 4
    wanted = train(BUSY.replace(delta_t=0.012), digits, device="cpu", output_rule="merge").records[-1].test.accuracy
    assert found["accuracy"].sel(hidden="drop", output="merge").item() == wanted


# Tables and plots


def accuracies(**coords: Any) -> xr.Dataset:
    values = np.full([len(labels) for labels in coords.values()], 0.9)
    return xr.Dataset({"accuracy": (tuple(coords), values)}, coords)


def test_worst_clock_is_told_of_each_way_to_train() -> None:
    part = accuracies(rule=["drop", "graded"], seed=[0, 1], training=list(collapse.TRAINED_ON), delta_t=[0.0, 0.01])
    accuracy = part["accuracy"]
    accuracy.loc[{"training": "own", "delta_t": 0.0}] = np.nan
    accuracy.loc[{"training": "drawn", "delta_t": 0.01, "rule": "drop"}] = [0.85, 0.87]
    accuracy.loc[{"rule": "graded", "seed": 1}] = np.nan
    rows = report.clocks_table({"mnist": part}).set_index(["rule", "trained on"])
    drawn = rows.loc[("`drop`", collapse.TRAINED_ON["drawn"])]
    assert drawn["worst clock (%)"] == "85.0 / 87.0" and drawn["seeds"] == 2
    assert drawn["difference (points)"].startswith("-4.0 [") and drawn["most lost (points)"] == "4.0 at 10 ms"
    assert rows.loc[("`graded`", collapse.TRAINED_ON["own"])]["seeds"] == 1
    draw(collapse.plot_every_clock(part))


def test_gain_of_drop_in_one_layer_is_told_seed_by_seed() -> None:
    rules = ["drop", "merge"]
    part = accuracies(seed=[0, 1, 2], delta_t=[0.008], hidden=rules, output=rules)
    part["accuracy"].loc[{"hidden": "drop", "output": "drop"}] = np.array([[0.6], [0.62], [np.nan]])
    [row] = report.layers_table({"fashion_mnist": part}).to_dict("records")
    assert row["seeds"] == 2 and row["hidden `drop`, output `drop`"] == "60.0 / 62.0"
    assert row["`drop` in hidden only (points)"].startswith("+29.0 [")
    assert report.layers_table({}).empty and report.clocks_table({}).empty


def test_layer_that_fails_is_named_where_drop_has_collapsed() -> None:
    rules = ["drop", "merge"]
    part = accuracies(seed=[0, 1], delta_t=[0.006, 0.008], hidden=rules, output=rules)
    nothing: dict[str, dict[str, xr.Dataset]] = {"cross_test": {}, "collapse_law": {}}
    assert report.answer({}, nothing | {"one_layer": {"fashion_mnist": part}}) == []
    part["accuracy"].loc[{"output": "drop", "delta_t": 0.008}] = 0.6
    [said] = report.answer({}, nothing | {"one_layer": {"fashion_mnist": part}})
    assert "on fashion_mnist at 8 ms" in said and "have 90.0 / 90.0 %; with it in the output only 60.0 / 60.0" in said
