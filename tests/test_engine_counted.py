"""What a training step costs on a GPU, by count: it does what the CPU does, and no more than it did."""

from __future__ import annotations

import json
from pathlib import Path

import machine_code
import numpy as np
import pytest
from counted import CountedDevice
from emulated import compiler

from bats_lab.config import Config
from bats_lab.engine import Mode, get_backend
from bats_lab.engine.cuda.networks import CudaBackend

#: Figures of a small step and of the machine code, and by how much more is a regression.
COSTS = Path(__file__).with_name("kernel_costs.json")
MORE = 1.1

pytestmark = pytest.mark.skipif(
    machine_code.nvrtc() is None or compiler() is None, reason="needs a C++ compiler and nvidia-cuda-nvrtc"
)


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent / "benchmarks")
        import bench_model
    return bench_model


@pytest.fixture(scope="module")
def counting(model) -> CountedDevice:
    return model.device()


def test_ptx_run_on_the_cpu_trains_as_the_engine_does(model, counting: CountedDevice) -> None:
    config = Config(
        hidden=(60, 40), max_spikes_hidden=(9, 9), threshold_hidden=(0.2, 0.1), threshold_output=0.1, delta_t=0.001,
        batch_size=5,
    )  # fmt: skip
    network, (spikes, labels) = model.trained(config, n_batches=20)
    own, states, sums = network.networks, [], []
    for backend in (get_backend("cpu"), CudaBackend(counting)):
        group = backend.networks(own.shape, own.neurons, own.weights)
        sums += group.train(
            group.load([spikes], labels), [Mode()], [np.arange(5)], batch_size=5, learning_rates=[config.learning_rate]
        )
        states.append(group.state(0))
    assert sums[0].sent.min() > 10
    np.testing.assert_array_equal(sums[0].sent, sums[1].sent)
    np.testing.assert_array_equal(sums[0].confusion, sums[1].confusion)
    for here, there in zip(states[0].first, states[1].first, strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-3 * np.abs(here).max())


def measured(model, counting: CountedDevice) -> dict[str, dict[str, float]]:
    """Return, of each kernel, what a small step does with it and what its machine code takes."""
    config = Config(dataset="mnist").replace(dataset="mnist_small", delta_t=0.004, hidden=200, batch_size=4)
    out: dict[str, dict[str, float]] = {name: {} for name in counting.kernels}
    chain = len(model.GPUS)
    for launch in model.step(config, counting):
        of_kernel = out[launch.kernel]
        for name, value in (
            ("instructions issued", launch.instructions),
            ("sectors", launch.sectors),
            ("chain of loads", launch.longest[chain]),
        ):
            of_kernel[name] = of_kernel.get(name, 0.0) + round(float(value))
    for architecture in ("sm_75", "sm_80", "sm_90", "sm_120"):
        for name, found in machine_code.resources(machine_code.nvrtc(), architecture).items():
            out[name][f"registers, {architecture}"] = found.registers
            out[name][f"bytes spilled, {architecture}"] = found.spilled_bytes
            if found.instructions is not None:
                out[name][f"instructions, {architecture}"] = found.instructions
    return out


def test_no_kernel_costs_more_than_it_did(model, counting: CountedDevice) -> None:
    """Where a change is worth what it costs: ``python tests/test_engine_counted.py`` writes the figures anew."""
    stored = json.loads(COSTS.read_text())
    found = measured(model, counting)
    more = [
        f"{kernel}: {name} {value:g}, were {stored[kernel].get(name)}"
        for kernel, values in found.items()
        for name, value in values.items()
        if not value <= MORE * stored[kernel].get(name, 0)
    ]
    assert not more, more
    assert found.keys() == stored.keys()


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
    import bench_model

    COSTS.write_text(json.dumps(measured(bench_model, bench_model.device()), indent=1) + "\n")
