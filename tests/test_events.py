"""Data sets of events: Yin-Yang, and one's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.data.generated import yin_yang
from bats_lab.errors import DataError
from bats_lab.explore.digit import explore_digit
from bats_lab.explore.rasters import explore_rasters
from bats_lab.explore.tradeoff import explore_tradeoff
from bats_lab.plots.raster import RasterLayer, kept_rasters, raster_distances
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import open_run, save_run
from bats_lab.runs.kept import image_of, neuron_of
from bats_lab.runs.training import input_spikes, train
from bats_lab.spikes.encoding import encode_images, n_channels, n_events
from bats_lab.spikes.grid import to_ticks
from bats_lab.spikes.trains import Spikes
from bats_lab.sweeps.plan import plan_sweep

SMALL = Config(dataset="yin_yang", hidden=20, epochs=1, n_train=60, n_test=30)
#: Three samples, the second without any event; channel 1 spikes twice in the first, 3 ms apart.
SAMPLE, CHANNEL, TIME = [0, 0, 0, 2], [1, 0, 1, 2], [2.0, 3.0, 5.0, 90.0]


def arrays(**changes: object) -> dict[str, Any]:
    columns = {"sample": SAMPLE, "channel": CHANNEL, "time": TIME, "y": [0, 1, 1]}
    both = {f"{name}_{split}": np.array(column) for name, column in columns.items() for split in ("train", "test")}
    return both | {"unit": "ms"} | changes


def own(tmp_path: Path, **changes: object) -> str:
    kept = {name: values for name, values in arrays(**changes).items() if values is not None}
    np.savez(tmp_path / "own.npz", **kept)
    return str(tmp_path / "own.npz")


def own_table(tmp_path: Path, text: str | None = None, time: str = "time_ms") -> str:
    lines = [
        f"{split},{sample},{label},{channel},{t}"
        for split in ("train", "test")
        for sample, label, channel, t in [(0, 0, 1, 2.0), (0, 0, 0, 3.0), (0, 0, 1, 5.0), (1, 1, 2, 90.0)]
    ]
    (tmp_path / "own.csv").write_text(text or "\n".join([f"split,sample,label,channel,{time}", *lines]) + "\n")
    return str(tmp_path / "own.csv")


# Yin-Yang


def test_yin_yang_has_the_sizes_of_its_paper() -> None:
    data = load_dataset("yin_yang")
    assert (len(data.x_train), len(data.x_test), data.n_classes) == (5000, 1000, 3) and data.official
    assert n_channels(data.x_train) == 5 and data.last_time < 0.1
    share = np.bincount(data.y_train) / 5000
    assert share == pytest.approx([1 / 3] * 3, abs=0.02)


def test_points_lie_where_their_class_is() -> None:
    data = yin_yang(splits={"test": (40, 300)})
    x, y, flipped_x, flipped_y, bias = 10 * data["x_test"].padded()[..., 0].T  # type: ignore[union-attr]
    np.testing.assert_allclose([x + flipped_x, y + flipped_y, 1 + bias], 1)
    assert (np.hypot(x - 0.5, y - 0.5) <= 0.5).all()
    to_dot = np.minimum(np.hypot(x - 0.25, y - 0.5), np.hypot(x - 0.75, y - 0.5))
    assert ((to_dot < 0.1) == (data["y_test"] == 2)).all()
    turned = data["y_test"][(np.hypot(x - 0.25, y - 0.5) > 0.25) & (y < 0.5)]  # below, but not in the left half-circle
    assert not (turned == 1).any()


def test_test_samples_are_those_that_others_published() -> None:
    path = Path(os.environ.get("BATS_LAB_DATA", "")) / "published" / "yin_yang_h30.npz"
    if not path.is_file():
        pytest.skip("needs published in the folder that BATS_LAB_DATA names")
    data = load_dataset("yin_yang")
    with np.load(path) as published:
        mine = 0.15 + 1.85 * data.x_test.padded()[:, :4, 0] / 0.1  # type: ignore[union-attr]
        np.testing.assert_allclose(mine, published["input_times"], rtol=1e-14)
        np.testing.assert_array_equal(data.y_test, published["labels"])


def test_recipe_learns_in_a_few_epochs() -> None:
    data = load_dataset("yin_yang")
    training = train(Config(dataset="yin_yang", epochs=6, hidden=100), data, device="cpu")
    assert training.records[-1].test.accuracy > 0.85


# Japanese Vowels


def test_vowels_are_those_of_the_archive() -> None:
    data = load_dataset("japanese_vowels")
    assert (len(data.x_train), len(data.x_test), data.n_classes, n_channels(data.x_train)) == (270, 370, 9, 24)
    assert np.bincount(data.y_train).tolist() == [30] * 9
    assert data.last_time == pytest.approx(29 * 0.0064, abs=0.0064) and data.x_train.count.min() > 50  # type: ignore[union-attr]


# Events in a run


def test_events_come_on_the_ticks_that_images_come_on() -> None:
    images = np.array([[[7, 200], [0, 31]], [[255, 0], [1, 0]]], np.uint8)
    config = Config(delta_t=0.004)
    encoded, events = (input_spikes(x, config) for x in (images, encode_images(images, window=0.1)))
    for name in ("start", "count", "neuron", "times", "ticks"):
        np.testing.assert_array_equal(getattr(encoded, name), getattr(events, name))
        assert getattr(encoded, name).dtype == getattr(events, name).dtype


def test_network_trained_on_images_is_that_trained_on_their_spikes() -> None:
    data = load_dataset("mnist_small", n_train=40, n_test=20)
    x_train, x_test = (encode_images(x, window=0.1) for x in (data.x_train, data.x_test))
    events = ImageData("events", x_train, data.y_train, x_test, data.y_test, data.class_names, "other", False)
    config = Config(hidden=20, threshold_output=0.2, batch_size=10, epochs=1, delta_t=0.002, validation_fraction=0.2)
    first, second = (train(config, d, device="cpu") for d in (data, events))
    for a, b in zip(first.network.weights, second.network.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.records[0].test.loss == second.records[0].test.loss


@pytest.mark.parametrize("delta_t", [0.0, 0.004])
def test_training_on_several_spikes_a_channel_is_the_same_on_every_engine(backend: str, delta_t: float) -> None:
    rng = np.random.default_rng(0)
    n, size = 40, 700
    x = Spikes.from_events(
        rng.integers(n, size=size), rng.integers(6, size=size), rng.uniform(0, 0.1, size), n_samples=n, n_neurons=6
    )
    labels = rng.integers(3, size=n)
    data = ImageData("events", x, labels, x[:10], labels[:10], ("a", "b", "c"), "", False)
    config = Config(hidden=15, batch_size=10, epochs=2, delta_t=delta_t, dtype="float64", auto_threshold=True)
    here, there = (train(config, data, device=device).network.weights for device in (backend, "cpu"))
    start = train(config.replace(learning_rate=1e-12), data, device="cpu").network.weights
    for a, b, c in zip(here, there, start, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
        assert np.abs(a - c).max() > 1e-3


@pytest.mark.filterwarnings("ignore:The output neurons", "ignore:No output neuron", "ignore:The true class")
def test_run_keeps_all_spikes_of_its_inputs(tmp_path: Path) -> None:
    config = Config(dataset=own(tmp_path), hidden=10, epochs=1, delta_t=0.004, keep_samples=3, batch_size=1)
    run = open_run(save_run(run_experiment(config), tmp_path)).squeeze(drop=True)
    raster = kept_rasters(run, 0)[0]
    np.testing.assert_allclose(raster.times[1], [0.002, 0.005], rtol=1e-6)
    np.testing.assert_allclose(raster.sent[1], [0.004, 0.008], rtol=1e-6)
    assert len(neuron_of(run, layer="hidden_1", neuron=0, sample=0).input_times) == 3
    assert len(neuron_of(run, layer="hidden_1", neuron=0, sample=1).input_times) == 0


def test_input_behind_the_window_is_refused_before_training(tmp_path: Path) -> None:
    config = Config(dataset=own(tmp_path), duration=0.08)
    with pytest.raises(
        ValueError, match=r"^duration is 0.08 s, and the last input spike of .* comes at 0.09 s \(times"
    ):
        run_experiment(config)
    with pytest.raises(ValueError, match=r"^duration is 0.08 s"):
        plan_sweep({"dataset": own(tmp_path), "duration": 0.08}, out=tmp_path / "out")


@pytest.mark.filterwarnings("ignore:The output neurons", "ignore:No output neuron", "ignore:The true class")
def test_window_of_encoding_is_nothing_to_events(tmp_path: Path) -> None:
    short = Config(
        dataset=own(tmp_path, time_train=np.ones(4), time_test=np.ones(4)), duration=0.01, hidden=5, epochs=1
    )
    assert run_experiment(short).sizes["epoch"] == 1
    np.savez(tmp_path / "images.npz", **{k: np.ones(s, int) for k, s in [("x_train", (2, 4)), ("x_test", (2, 4))]},
             y_train=[0, 1], y_test=[0, 1])  # fmt: skip
    images = Config(dataset=str(tmp_path / "images.npz"), duration=0.01)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"^encoding_window is 0.1 s; it must be at most"):
        run_experiment(images)


# One's own events


@pytest.mark.parametrize("write", [own, own_table], ids=["npz", "csv"])
def test_own_events_are_read_with_their_unit(tmp_path: Path, write: Callable[[Path], str]) -> None:
    data = load_dataset(write(tmp_path))
    neuron, times, _ = data.x_train.sample(0)  # type: ignore[union-attr]
    assert neuron.tolist() == [1, 0, 1] and times.tolist() == [0.002, 0.003, 0.005]
    assert (n_events(data.x_test), n_channels(data.x_test), data.class_names) == (4, 3, ("0", "1"))
    assert "samples of 3 channels" in data.summary and "until 0.09 s (times in ms), 2 classes" in data.summary


def test_hash_of_events_tells_them_apart(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [
        {}, {"unit": "us"}, {"n_channels": 4}, {"y_test": [0, 1, 0]}, {"channel_train": [1, 0, 1, 1]},
        {"sample_test": [0, 0, 1, 2]},
    ]  # fmt: skip
    assert len({load_dataset(own(tmp_path, **change)).data_hash for change in changes}) == len(changes)


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "no unit": ({"unit": None}, "lacks unit; .* unit says in what times are: s, ms, us, ns"),
    "other unit": ({"unit": "min"}, "unit of .* is 'min'; it must be one of s, ms, us, ns"),
    "no test": ({"time_test": None, "y_test": None}, "lacks time_test, y_test"),
    "negative time": ({"time_train": [2.0, -3.0, 5.0, 90.0]}, "time_train in .* is -3.0 at event 1"),
    "NaN": ({"time_test": [2.0, 3.0, 5.0, np.nan]}, "time_test in .* is nan at event 3"),
    "unsorted": ({"time_train": [2.0, 5.0, 4.0, 1.0]}, "goes back from 5.0 to 4.0 ms in sample 0 .event 2."),
    "channel": ({"n_channels": 2}, "channel_train in .* goes from 0 to 2; it must be 0 to 1"),
    "negative channel": ({"channel_test": [1, -1, 1, 2]}, "channel_test in .* goes from -1 to 2"),
    "sample": ({"sample_train": [0, 0, 0, 3]}, "sample_train in .* goes from 0 to 3; it must be 0 to 2"),
    "fractions": ({"channel_train": [1.0, 0.5, 1.0, 2.0]}, "channel_train in .* float64; it must be integers"),
    "lengths": ({"channel_train": [1, 0]}, r"channel_train in .* shape \(2,\) .* as many as there are times \(4\)"),
    "text": ({"time_train": ["a"] * 4}, "time_train in .* <U1; it must be numbers"),
    "no channels": ({"n_channels": 0}, "n_channels in .* is 0; it must be one integer above 0"),
    "labels": ({"y_train": [0.5, 1.0, 1.0]}, "y_train in .* type float64; it must be one integer a sample"),
}


@pytest.mark.parametrize("changes, text", REFUSED.values(), ids=REFUSED)
def test_own_events_that_are_none_are_refused_in_a_sentence(
    tmp_path: Path, changes: dict[str, object], text: str
) -> None:
    with pytest.raises(DataError, match=text) as error:
        load_dataset(own(tmp_path, **changes))
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


HEADER = "split,sample,label,channel,time_ms\n"
TABLES = {
    "no unit": ("split,sample,label,channel,time\ntrain,0,0,0,1\n", "has the columns .* one of time_s, time_ms"),
    "no label": ("split,sample,channel,time_s\ntrain,0,0,1\n", "it must have split, sample, label, channel"),
    "split": (HEADER + "train,0,0,0,1\nvalid,0,0,0,1\n", "split in .* is 'valid'; it must be train or test"),
    "labels": (HEADER + "train,0,0,0,1\ntrain,0,1,0,2\ntest,0,0,0,1\n", "train sample 0 in .* has several labels"),
    "gap": (HEADER + "train,0,0,0,1\ntrain,2,1,0,2\ntest,0,0,0,1\n", "sample of train in .* has gaps"),
    "no test": (HEADER + "train,0,0,0,1\n", "test in .* is empty"),
    "text": (HEADER + "train,0,0,0,soon\ntest,0,0,0,1\n", "time_train in .* must be numbers"),
    "missing": (HEADER + "train,0,0,,1\ntest,0,0,0,1\n", "channel_train in .* must be integers"),
    "empty": (" ", "cannot be read: No columns"),
    "ragged": (HEADER + "train,0,0,0,1,5,6\ntest,0,0,0,1\n", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("content, text", TABLES.values(), ids=TABLES)
def test_table_that_is_none_of_events_is_refused_in_a_sentence(tmp_path: Path, content: str, text: str) -> None:
    with pytest.raises(DataError, match=text) as error:
        load_dataset(own_table(tmp_path, content))
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_table_in_another_unit_is_the_same_events(tmp_path: Path) -> None:
    text = Path(own_table(tmp_path)).read_text()
    micro = text.replace("time_ms", "time_us").replace(".0\n", "000\n")
    hashes = {load_dataset(own_table(tmp_path, t)).data_hash for t in (text, micro)}
    assert len(hashes) == 1


# Spikes as they are put together


def test_events_in_any_order_are_sorted_by_sample_and_time() -> None:
    rng = np.random.default_rng(1)
    sample, neuron, times = rng.integers(5, size=50), rng.integers(4, size=50), rng.random(50)
    spikes = Spikes.from_events(sample, neuron, times, n_samples=7, n_neurons=4)
    assert len(spikes) == 7 and spikes.count.tolist() == np.bincount(sample, minlength=7).tolist()
    found = {tuple(event) for event in zip(*spikes.events(), strict=True)}
    assert found == set(zip(sample, neuron, times, strict=True))
    assert all((np.diff(spikes.sample(i)[1]) >= 0).all() for i in range(7))


def test_chosen_samples_are_those_in_that_order() -> None:
    spikes = Spikes.from_padded(np.array([[0.3, 0.1], [0.2, np.inf], [np.inf, 0.5]]))
    assert spikes[np.array([2, 0])].padded()[..., 0].tolist() == [[np.inf, 0.5], [0.3, 0.1]]
    assert to_ticks(spikes[1:2].events()[2], 0.1).tolist() == [3]


@pytest.mark.parametrize("events", [([3], [0], [0.1]), ([0], [-1], [0.1]), ([0], [0], [-0.1]), ([0], [0], [np.inf])])
def test_events_that_cannot_be_are_refused(events: tuple[list[int], list[int], list[float]]) -> None:
    with pytest.raises(ValueError, match=r"it must be from 0 to|must be at least 0"):
        Spikes.from_events(*events, n_samples=3, n_neurons=2)  # type: ignore[arg-type]


# Explorers


@pytest.mark.filterwarnings("ignore:The output neurons")
def test_rasters_of_events_are_explored_without_an_image() -> None:
    run = run_experiment(SMALL.replace(dataset="japanese_vowels", delta_t=0.004))
    explorer = explore_rasters(run)
    assert len(explorer.pictures) == 1 and explorer.controls["pixel"].description == "channel"
    explorer.controls["sample"].value = 2
    shown = explorer.pictures[0].panels[0].columns("sent")
    spikes = input_spikes(load_dataset("japanese_vowels").x_test[2:3], SMALL.replace(delta_t=0.004))
    assert len(shown["time"]) == n_events(spikes)
    with pytest.raises(ValueError, match=r"japanese_vowels holds events; there is no image of sample 0\.$"):
        image_of(run.squeeze(drop=True), 0)
    assert "holds events" in explore_digit(run).text


@pytest.mark.filterwarnings("ignore:The output neurons")
def test_spikes_behind_a_point_of_the_tradeoff_are_all_of_a_channel(tmp_path: Path) -> None:
    run = run_experiment(SMALL.replace(dataset="japanese_vowels", delta_t=0.004))
    save_run(run, tmp_path)
    shown = explore_tradeoff(tmp_path).pictures[1].panels[0].columns("sent")
    spikes = input_spikes(load_dataset("japanese_vowels").x_test[:1], SMALL.replace(delta_t=0.004))
    assert len(shown["time"]) == n_events(spikes) > spikes.n_neurons


@pytest.mark.filterwarnings("ignore:The output neurons")
def test_raster_says_how_far_its_spikes_are_from_continuous_time() -> None:
    run = run_experiment(SMALL)
    explorer = explore_rasters(run, delta_t=0.0)
    assert "Victor" not in explorer.sentence.text
    explorer.controls["delta_t"].value = 0.002
    inputs = load_dataset("yin_yang").x_test[:1].padded()[0]
    sent = input_spikes(load_dataset("yin_yang").x_test[:1], SMALL.replace(delta_t=0.002)).padded(sent=True)[0]
    moved = np.abs(sent - inputs).sum() / SMALL.tau_syn
    filtered = np.sqrt((1 - np.exp(-np.abs(sent - inputs) / SMALL.tau_syn)).sum())
    assert f"τ = 15 ms: input {moved:.3g} and {filtered:.3g}; hidden layer" in explorer.sentence.text


def test_distance_of_rasters_sums_over_neurons() -> None:
    none = np.array([[0.01, np.inf], [np.inf, np.inf]])
    one = np.array([[0.01, np.inf], [0.02, 0.09]])
    apart = raster_distances(RasterLayer("a", one, one), RasterLayer("a", none, none), tau=0.001)
    assert apart == pytest.approx((2, 1))
