from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bats_lab.data.datasets import load_dataset
from bats_lab.spikes.encoding import encode_changes, encode_images, encode_periods, encode_rates, level_times

IMAGES = arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=12))


@given(images=IMAGES, window=st.floats(1e-3, 10))
def test_every_pixel_but_zero_fires_once_at_its_time(images: np.ndarray, window: float) -> None:
    spikes = encode_images(images, window=window)
    flat = images.reshape(len(images), int(np.prod(images.shape[1:])))
    assert len(spikes) == len(images) and spikes.n_neurons == flat.shape[1] and spikes.delta_t == 0
    for i, image in enumerate(flat):
        neuron, times, _ = spikes.sample(i)
        assert sorted(neuron) == np.flatnonzero(image).tolist()
        assert np.allclose(times, [window * (1 - int(image[n]) / 255) for n in neuron], rtol=0, atol=1e-15 * window)


@given(images=IMAGES)
def test_events_ascend_by_time_then_by_neuron(images: np.ndarray) -> None:
    spikes = encode_images(images, window=0.1)
    for i in range(len(images)):
        neuron, times, _ = spikes.sample(i)
        assert list(zip(times, neuron, strict=True)) == sorted(zip(times, neuron, strict=True))
    assert spikes.count.sum() == len(spikes.times) == len(spikes.neuron) == len(spikes.ticks)


def test_pixels_are_counted_row_by_row() -> None:
    image = np.zeros((1, 3, 4), np.uint8)
    image[0, 1, 2] = 200
    assert encode_images(image, window=0.1).neuron.tolist() == [1 * 4 + 2]


def test_brightest_pixel_fires_at_once_and_darkest_before_the_end() -> None:
    times = level_times(0.1)
    assert times[255] == 0 and 0.0995 < times[1] < 0.1 and np.isinf(times[0])
    assert (np.diff(times[1:]) < 0).all()


def test_single_precision_is_double_precision_rounded() -> None:
    images = load_dataset("mnist_small", n_train=20).x_train
    double, single = (encode_images(images, window=0.1, dtype=dtype) for dtype in ("float64", "float32"))
    assert single.times.dtype == np.float32 and np.array_equal(single.times, double.times.astype(np.float32))
    assert np.array_equal(single.neuron, double.neuron)


def test_strided_images_are_encoded_as_they_read() -> None:
    images = load_dataset("mnist_small", n_train=10).x_train
    turned = images.transpose(0, 2, 1)[::2]
    a, b = encode_images(turned, window=0.1), encode_images(turned.copy(), window=0.1)
    assert np.array_equal(a.neuron, b.neuron) and np.array_equal(a.times, b.times)


@pytest.mark.parametrize("window", [0.0, -1.0, np.inf, np.nan])
def test_window_that_makes_no_sense_is_refused(window: float) -> None:
    with pytest.raises(ValueError, match="window is"):
        encode_images(np.zeros((1, 4), np.uint8), window=window)


def test_images_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match=r"float64; it must be uint8\."):
        encode_images(np.zeros((1, 4)), window=0.1)
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        encode_images(np.zeros(4, np.uint8), window=0.1)
    with pytest.raises(ValueError, match="'float16'"):
        encode_images(np.zeros((1, 4), np.uint8), window=0.1, dtype="float16")


# Signals and rates


def test_changes_of_a_signal_are_told_to_less_than_a_step() -> None:
    rng = np.random.default_rng(0)
    signals = [np.cumsum(rng.normal(0, 0.3, (n, 3)), axis=0) for n in (7, 1, 12)]
    step = np.array([0.1, 0.25, 0.07])
    spikes = encode_changes(signals, frame=0.01, step=step)
    sample, neuron, times = spikes.events()
    for i, signal in enumerate(signals):
        for frame, values in enumerate(signal):
            seen = neuron[(sample == i) & (times <= 0.01 * (frame + 1) + 1e-12)]
            level = step * [np.sum(seen == 2 * c) - np.sum(seen == 2 * c + 1) for c in range(3)]
            assert (np.abs(level - values) < step).all()


def test_crossing_is_where_the_line_between_frames_meets_the_level() -> None:
    spikes = encode_changes([np.array([[0.5], [1.5], [0.25]])], frame=1.0, step=1.0)
    assert spikes.neuron.tolist() == [0, 1] and spikes.times.tolist() == [1.5, 2.4]


@pytest.mark.parametrize("changes", [{"frame": 0.0}, {"step": 0.0}, {"step": np.array([1.0, -1.0])}, {"frame": np.inf}])
def test_changes_need_a_frame_and_steps(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"both must be above 0 and finite\.$"):
        encode_changes([np.zeros((2, 2))], **({"frame": 0.1, "step": 1.0} | changes))
    with pytest.raises(ValueError, match=r"NaN or infinity; it must be finite\.$"):
        encode_changes([np.full((2, 2), np.nan)], frame=0.1, step=1.0)


def test_rate_is_in_proportion_to_brightness() -> None:
    spikes = encode_rates(np.tile(np.array([0, 51, 255], np.uint8), (400, 1)), window=0.1, rate=200)
    count = np.bincount(spikes.neuron, minlength=3) / 400
    assert count[0] == 0 and count[1:] == pytest.approx([4, 20], rel=0.1)
    assert spikes.times.min() >= 0 and spikes.times.max() < 0.1 and spikes.times.mean() == pytest.approx(0.05, rel=0.05)


def test_rates_are_the_same_from_the_same_seed() -> None:
    images = np.full((3, 5), 99, np.uint8)
    first, again, other = (encode_rates(images, window=0.1, rate=100, seed=seed).times for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_rates_of_what_is_no_image_are_refused() -> None:
    with pytest.raises(TypeError, match=r"float64; it must be uint8\.$"):
        encode_rates(np.zeros((1, 4)), window=0.1, rate=1)
    with pytest.raises(ValueError, match=r"both must be above 0 and finite\.$"):
        encode_rates(np.zeros((1, 4), np.uint8), window=0.1, rate=0)


def test_pixel_repeats_in_every_period_what_it_says_once() -> None:
    images = load_dataset("mnist_small", n_train=5).x_train
    once = encode_images(images, window=0.02).padded()
    again = encode_periods(images, window=0.1, n_spikes=5)
    np.testing.assert_allclose(again.padded(), once + 0.02 * np.arange(5))
    assert again.count.tolist() == (5 * np.count_nonzero(images.reshape(5, -1), axis=1)).tolist()
    single = encode_periods(images, window=0.1, n_spikes=1)
    np.testing.assert_array_equal(single.times, encode_images(images, window=0.1).times)
    with pytest.raises(ValueError, match="n_spikes is 0; it must be at least 1"):
        encode_periods(images, window=0.1, n_spikes=0)
