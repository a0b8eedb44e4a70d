"""Runs made up without training, for tests of what comes after it; and the grid of a small real sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import LATENCY_TIMES, Config
from bats_lab.data.datasets import ImageData
from bats_lab.network.feedforward import Network
from bats_lab.runs.experiment import assemble
from bats_lab.runs.records import EpochRecord, Pass

CLASSES = ("zero", "one", "two")

#: What the fixture `small_results` holds, for `sweep.expand_grid`. The threshold is so low that networks that small
#: have no silent outputs.
SMALL_SWEEP: dict[str, Any] = {
    "n_train": 200,
    "n_test": 100,
    "hidden": 20,
    "threshold_output": 0.1,
    "epochs": 2,
    "delta_t": [0, 0.004],
    "seed": [0, 1],
}


def made_up_pass(config: Config, rng: np.random.Generator) -> Pass:
    """A pass with every measure drawn at random."""
    sizes = [*config.hidden, len(CLASSES)]
    n, k = len(sizes), len(CLASSES)
    return Pass(
        n_samples=20,
        accuracy=float(rng.random()),
        loss=float(rng.random()),
        spike_count=rng.random(n) * 10,
        dropped=rng.random(n),
        merged=rng.random(n),
        deferred=rng.random(n),
        lost_spikes=rng.random(n),
        truncated_neurons=rng.random(n),
        spike_delay=rng.random(n),
        fired=[rng.random(size) < 0.7 for size in sizes],
        input_spikes=7.0,
        confidence=rng.random(len(LATENCY_TIMES)),
        first_spike_time=float(rng.random()),
        decision_time=float(rng.random()),
        confusion=rng.integers(0, 9, (k, k + 1)),
    )


def made_up_records(config: Config, seed: int = 0) -> list[EpochRecord]:
    """One record an epoch."""
    rng = np.random.default_rng([seed, config.seed, int(config.delta_t * 1e9)])
    return [
        EpochRecord(
            epoch=epoch,
            train=made_up_pass(config, rng),
            test=made_up_pass(config, rng),
            weight_norm=rng.random(len(config.hidden) + 1),
            learning_rate=config.learning_rate,
            train_seconds=1.0,
            test_seconds=0.5,
            validation=made_up_pass(config, rng) if config.validation_fraction else None,
        )
        for epoch in range(1, config.epochs + 1)
    ]


def made_up_data(n_pixels: int = 12, seed: int = 0) -> ImageData:
    """Images of random pixels, so that real networks can be run on them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (20, 1, n_pixels), dtype=np.uint8)
    labels = rng.integers(0, len(CLASSES), 20)
    return ImageData("made up", images, labels, images, labels, CLASSES, "0123abcd", False)


def make_run(*, n_pixels: int = 12, n_epochs: int | None = None, **parameters: Any) -> xr.Dataset:
    """The results of a run with these parameters: its network exists and spikes, its measures are random.

    With `n_epochs` it is one that broke off after so many.
    """
    config = Config(**{"hidden": (6,), "epochs": 2, "n_train": 20, "n_test": 20, "keep_samples": 2} | parameters)
    data = made_up_data(n_pixels)
    network = Network.from_config(config, n_pixels, len(CLASSES), threads=1) if n_epochs is None else None
    names = "version", "backend", "device", "data_hash", "git_commit", "started"
    origin = dict.fromkeys(names, "text") | {"environment": "{}"}
    records = made_up_records(config)[:n_epochs]
    return assemble(config, data, records, network, origin | {"config": config.to_json()})


def patterns(shape: tuple[int, ...], top: int = 255, white: float = 0.3) -> dict[str, np.ndarray]:
    """Three classes of images, each a pattern of its own with noise, as arrays of an .npz file."""
    rng = np.random.default_rng(0)
    ideal = rng.random((3, *shape)) < white
    arrays = {}
    for split, n in (("train", 300), ("test", 60)):
        labels = np.arange(n) % 3
        noise = rng.random((n, *shape)) < min(white / 3, 0.1)
        arrays |= {f"x_{split}": ((ideal[labels] ^ noise) * top).astype(np.uint8), f"y_{split}": labels}
    return arrays


def own(tmp_path: Path, shape: tuple[int, ...], **changes: object) -> str:
    np.savez(tmp_path / "own.npz", **(patterns(shape) | changes))  # type: ignore[arg-type]
    return str(tmp_path / "own.npz")
