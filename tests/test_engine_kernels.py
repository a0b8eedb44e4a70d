"""Kernels are compiled before they are needed, each once a type, and not without a word."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from numba.core import event

from bats_lab.engine.cpu import backward, forward
from bats_lab.engine.cpu.compiling import Teller

# Trains in a process of its own, with nothing compiled: here other tests have loaded kernels of all types.
TRAIN = """
import json
from itertools import product

from numba.core.dispatcher import Dispatcher

from bats_lab import Config, load_dataset, train
from bats_lab.engine.cpu import backward, forward, networks, order, read_out
from bats_lab.spikes.estimators import ESTIMATORS
from bats_lab.spikes.rules import RULES

modules = (forward, backward, read_out, order)
kernels = {name: k for module in modules for name, k in vars(module).items() if isinstance(k, Dispatcher)}
counts = []  # signatures of each kernel, where a training is entered and left
pass_ = networks.CpuNetworks.train

def watched(*arguments, **options):
    counts.append({name: len(kernel.signatures) for name, kernel in kernels.items()})
    sums = pass_(*arguments, **options)
    counts.append({name: len(kernel.signatures) for name, kernel in kernels.items()})
    return sums

networks.CpuNetworks.train = watched
data = load_dataset("mnist_small", n_train=20, n_test=20)
base = Config(hidden=(4, 4), max_spikes_hidden=(9, 9), threshold_hidden=(0.2, 0.2), epochs=1)
for rule, estimator, delta_t in product(RULES, ESTIMATORS, (0.004, 0)):
    try:
        config = base.replace(rule=rule, estimator=estimator, delta_t=delta_t)
    except ValueError:  # a rule or an estimator that needs a grid, or no rounding
        continue
    train(config, data, device="cpu", threads=1)
print(json.dumps(counts))
"""


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, int]]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("numba"))}
    done = subprocess.run([sys.executable, "-c", TRAIN], check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout)


def test_no_epoch_compiles_or_loads_a_kernel(counts: list[dict[str, int]]) -> None:
    before, *_ = counts  # the first training is the tiny one that compiles
    assert before["forward"] == 0
    trainings = list(zip(counts[2::2], counts[3::2], strict=True))
    assert len(trainings) > 10
    assert all(entered == left for entered, left in trainings)


def test_each_kernel_is_compiled_once(counts: list[dict[str, int]]) -> None:
    twice = {"_sort_part"}  # its keys are times or ticks
    assert counts[-1] == {name: 1 + (name in twice) for name in counts[-1]}


def test_compiling_is_told_at_once_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    teller, told = Teller(), []
    for kernel in (len, forward.forward, backward.backward):
        teller.on_start(event.Event("numba:compile", event.EventStatus.START, {"dispatcher": kernel}))
        told.append(capfd.readouterr().err)
    assert told == ["", "compiling the engine, once: about half a minute\n", ""]
