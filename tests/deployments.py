"""A deployment made up without networks, for tests of what is drawn and told of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from bats_lab.runs.files import save_dataset
from bats_lab.spikes.rules import RULES
from bats_lab.studies.chip.deploy import deployment_path

STEPS, WORDS, SEEDS = (0.0, 0.001, 0.004, 0.01), (32, 4, 2), (0, 1, 2)
_DIMS = ("dataset", "seed", "split", "rule", "delta_t", "bits")


def make_deployment(*datasets: str, seeds: tuple[int, ...] = SEEDS) -> xr.Dataset:
    """A made-up deployment, as open_deployment returns it: drop collapses at 10 ms, and 2 bits cost two points."""
    names = list(datasets or ["mnist"])
    rng = np.random.default_rng(0)
    shape = (len(names), len(seeds), 2, len(RULES), len(STEPS), len(WORDS))
    accuracy = 0.95 + rng.uniform(-0.002, 0.002, shape)
    accuracy[..., -1] -= 0.02
    accuracy[:, :, :, 0, -1] -= 0.4
    accuracy[:, :, :, :4, 0] = accuracy[:, :, :, :1, 0]  # continuous time is the same under all but clocked
    accuracy[:, :, :, -1, 0] = np.nan
    steps = np.reshape(STEPS, (-1, 1))
    known = np.where(np.isnan(accuracy), np.nan, 1.0)
    spikes = known * (500 + 1000 * steps + rng.uniform(0, 5, shape))
    layers = np.stack([spikes, 0.1 * spikes], axis=-1)
    events = np.stack([known * 50_000, 10 * spikes], axis=-1)
    return xr.Dataset(
        {
            "accuracy": (_DIMS, accuracy),
            "decision_time": (_DIMS, known * (0.06 + steps + rng.uniform(0, 1e-3, shape))),
            "spike_count": ((*_DIMS, "layer"), layers),
            "synaptic_events": ((*_DIMS, "layer"), events),
            "layer_size": (("dataset", "seed", "layer"), np.tile([80.0, 10.0], (len(names), len(seeds), 1))),
            "n_inputs": (("dataset", "seed"), np.full(shape[:2], 784.0)),
            "duration": (("dataset", "seed"), np.full(shape[:2], 0.2)),
        },
        {
            "dataset": names,
            "seed": list(seeds),
            "split": ["validation", "test"],
            "rule": list(RULES),
            "delta_t": list(STEPS),
            "bits": list(WORDS),
            "layer": ["hidden_1", "output"],
        },
    )


def save_deployment(deployment: xr.Dataset, folder: Path) -> None:
    """Write it as run_deployment does: a file a data set and seed."""
    for dataset in deployment["dataset"].values.tolist():
        for seed in deployment["seed"].values.tolist():
            part = deployment.sel(dataset=dataset, seed=seed, drop=True)
            save_dataset(part.assign_attrs(dataset=dataset, seed=seed), deployment_path(folder, dataset, seed))
