from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bats_lab.data.datasets import load_dataset
from bats_lab.spikes.encoding import encode_images, level_times

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
