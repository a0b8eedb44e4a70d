"""Networks: shapes and numbers that do not fit, and files that hold a whole network or none."""

from __future__ import annotations

import itertools
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bats_lab.config import Config
from bats_lab.network.feedforward import Network, save_arrays
from bats_lab.spikes.trains import Spikes

FITTING: dict[str, Any] = {
    "sizes": (4, 3, 2),
    "thresholds": [0.2, 0.3],
    "max_spikes": [5, 6],
    "tau_syn": 0.13,
    "duration": 0.2,
}


def small(**changes: Any) -> Network:
    settings = {**FITTING, "weights": weights_for((4, 3, 2)), **changes}
    return Network(settings.pop("sizes"), **settings, threads=1)


def weights_for(sizes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(6, 4, (post, pre)) for pre, post in itertools.pairwise(sizes)]


def inputs(n_samples: int = 3, n_neurons: int = 4) -> Spikes:
    return Spikes.from_padded(np.random.default_rng(1).uniform(0, 0.1, (n_samples, n_neurons)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (4,)}, r"sizes is \[4\]; it must have two layers or more"),
        ({"sizes": (4, 0, 2)}, r"sizes is \[4, 0, 2\]; .* each of one neuron or more"),
        ({"thresholds": [0.2]}, r"thresholds is \[0\.2\]; it must have 2 entries above 0"),
        ({"thresholds": [0.2, -0.3]}, "thresholds is .*; it must have 2 entries above 0"),
        ({"thresholds": [0.2, np.nan]}, "thresholds is .*; it must have 2 entries above 0"),
        ({"max_spikes": [5, 0]}, r"max_spikes is \[5, 0\]; it must have 2 entries above 0"),
        ({"tau_syn": 0.0}, r"tau_syn is 0\.0; it must be a time above 0"),
        ({"duration": np.inf}, "duration is inf; it must be a time above 0"),
        ({"dtype": "float16"}, "dtype is 'float16'; it must be float32 or float64"),
        ({"weights": weights_for((4, 3))}, r"weights have the shapes \[\(3, 4\)\]; they must be \(post, pre\): "),
        ({"weights": weights_for((3, 4, 2))}, r".* must be \(post, pre\): \[\(3, 4\), \(2, 3\)\]"),
    ],
)
def test_network_that_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        small(**changes)


def test_weights_set_later_must_fit_as_well() -> None:
    with pytest.raises(ValueError, match=r"weights have the shapes \[\(4, 3\)\]; they must be"):
        small().set_weights([np.zeros((4, 3))])


def test_weights_are_zero_where_none_are_given() -> None:
    network = small(weights=None)
    assert [w.shape for w in network.weights] == [(3, 4), (2, 3)] and not any(w.any() for w in network.weights)
    assert not any(a.spike_count.any() for a in network.simulate(inputs()))


def test_activity_has_the_shapes_of_its_layer() -> None:
    for activity, size, limit in zip(small().simulate(inputs()), (3, 2), (5, 6), strict=True):
        assert activity.times.shape == activity.discretized.shape == (3, size, limit)
        assert activity.spike_count.shape == (3, size) and activity.spike_count.any()
        assert activity.dropped.shape == activity.truncated_neurons.shape == (3,)


def test_no_samples_give_empty_activity_of_the_same_shapes() -> None:
    first, second = small().simulate(inputs(n_samples=0))
    assert first.times.shape == (0, 3, 5) and second.spike_count.shape == (0, 2)


def test_inputs_from_another_number_of_neurons_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^spikes come from 5 neurons; the network has 4 inputs\.$"):
        small().simulate(inputs(n_neurons=5))


def test_clock_without_a_time_step_is_refused() -> None:
    with pytest.raises(ValueError, match="a clock needs a time step above 0"):
        small().simulate(inputs(), rule="clocked")


def test_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^rule is 'dorp'; it must be one of"):
        small().simulate(inputs(), rule="dorp")


@pytest.mark.parametrize("shape", [(3, 3), (2, 2), (3,), ()])
def test_errors_of_another_shape_than_the_output_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"output_errors has the shape .*; it must be .*: \(3, 2\)"):
        small().gradients(inputs(), np.zeros(shape))


def test_network_of_a_run_has_its_parameters() -> None:
    config = Config(dataset="fashion_mnist", tau_syn=0.1, dtype="float64")
    network = Network.from_config(config, 784, 10)
    assert network.sizes == (784, 400, 400, 10) and network.dtype == "float64"
    assert network.thresholds == (0.13, 0.45, 0.7) and network.max_spikes == (5, 5, 20)
    assert (network.tau_syn, network.duration) == (0.1, 0.2)


# Files


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_loaded_network_is_the_one_that_was_saved(tmp_path: Path, dtype: str) -> None:
    network = small(dtype=dtype)
    network.save(tmp_path / "new" / "folder" / "network.npz")
    loaded = Network.load(tmp_path / "new" / "folder" / "network.npz")
    for name in ("sizes", "thresholds", "max_spikes", "tau_syn", "duration", "dtype"):
        assert getattr(loaded, name) == getattr(network, name), name
    for a, b in zip(network.weights, loaded.weights, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["numpy.savez", "os.fsync", "os.replace"])
def test_save_that_breaks_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    path = tmp_path / "network.npz"
    small().save(path)
    before = path.read_bytes()

    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(where, broken)
    with pytest.raises(type(error)):
        small(weights=weights_for((4, 3, 2), seed=1)).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["network.npz"]


def test_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        Network.load(tmp_path / "none.npz")


def cut_files(path: Path) -> list[bytes]:
    """The file's content cut off at many places, and with one byte changed at many places."""
    whole = path.read_bytes()
    places = np.linspace(0, len(whole) - 1, 60).astype(int)
    flipped = [whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :] for i in places]
    return [whole[:i] for i in places] + flipped


def test_damaged_file_is_refused_in_a_sentence_or_read_right(tmp_path: Path) -> None:
    path, network = tmp_path / "network.npz", small()
    network.save(path)
    refused = 0
    for content in cut_files(path):
        path.write_bytes(content)
        try:
            loaded = Network.load(path)
        except ValueError as error:
            assert str(error).startswith(f"{path} is not a saved network (")
            refused += 1
        else:  # the byte is one that says nothing, as a date
            assert loaded.thresholds == network.thresholds
            for a, b in zip(network.weights, loaded.weights, strict=True):
                np.testing.assert_array_equal(a, b)
    assert refused > 80


def test_other_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    save_arrays(tmp_path / "list.npz", settings=np.array("[1, 2]"))
    save_arrays(tmp_path / "unpickled.npz", settings=np.array({"sizes": 1}, dtype=object))
    (tmp_path / "text.npz").write_text("weights")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        file.writestr("settings.npy", "no array")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=rf"{path.name} is not a saved network"):
            Network.load(path)


def test_weights_of_the_output_are_shifted_and_no_others() -> None:
    config = Config(hidden=(30, 20), weight_scale=2.0)
    *hidden, output = Network.from_config(config, 12, 5, threads=1).weights
    *same, shifted = Network.from_config(config.replace(weight_shift_output=0.1), 12, 5, threads=1).weights
    assert all((a == b).all() for a, b in zip(hidden, same, strict=True))
    np.testing.assert_allclose(shifted, output + 0.2, atol=1e-6)
