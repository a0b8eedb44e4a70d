"""Checkpoints: a run after an epoch, in a file from which training goes on as if it had not stopped."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.engine import State
from bats_lab.errors import BatsLabError
from bats_lab.files import open_arrays, save_arrays
from bats_lab.runs.records import EpochRecord, Pass

__all__ = ["open_checkpoint", "save_checkpoint"]


def _origin(config: Config, data: ImageData, errors_from: Config | None) -> dict[str, str]:
    """Return what a checkpoint must have in common with the run that goes on from it."""
    counted = {} if errors_from is None else {"errors_from": errors_from.to_json()}
    return {"config": config.to_json(), "data_hash": data.data_hash, **counted}


def save_checkpoint(
    path: Path,
    config: Config,
    data: ImageData,
    state: State,
    records: list[EpochRecord],
    *,
    errors_from: Config | None = None,
) -> None:
    """Write weights, the optimiser's state and the epochs done, whole or not at all.

    Parameters
    ----------
    path : Path
    config, errors_from : Config
        As in :func:`bats_lab.runs.training.train`.
    data : ImageData
        What the run is trained on.
    state : State
        Of its network.
    records : list of EpochRecord

    Raises
    ------
    OSError
        If it cannot be written; what was there before is untouched.
    """
    arrays: dict[str, Any] = {name: np.array(text) for name, text in _origin(config, data, errors_from).items()}
    for i, (weights, first, second) in enumerate(zip(state.weights, state.first, state.second, strict=True)):
        arrays |= {f"weights_{i}": weights, f"first_{i}": first, f"second_{i}": second}
        arrays[f"updates_{i}"] = np.array(state.n_updates)
    kept = []
    for record in records:
        for i, w in enumerate(record.weights or []):
            arrays[f"kept_{record.epoch}_{i}"] = w
        kept.append(asdict(replace(record, weights=None)))
    arrays["records"] = np.array(json.dumps(kept, default=lambda array: array.tolist()))
    save_arrays(path, **arrays)


def open_checkpoint(
    path: Path, config: Config, data: ImageData, *, errors_from: Config | None = None
) -> tuple[State, list[EpochRecord]]:
    """Read what :func:`save_checkpoint` wrote for this very run on this very data.

    Raises
    ------
    BatsLabError
        If it is of another run or of other data, or cannot be read.
    """
    other = ""
    try:
        with open_arrays(path) as kept:
            origin = {name: str(kept[name]) for name in ("config", "data_hash", "errors_from") if name in kept}
            if Config.from_dict(json.loads(origin["config"])) != config:
                other = "with other parameters"
            elif origin["data_hash"] != data.data_hash:
                other = "on other data"
            elif origin.get("errors_from") != _origin(config, data, errors_from).get("errors_from"):
                other = "with errors from elsewhere"
            else:
                n = len(config.layer_names())
                records = [_record(values) for values in json.loads(str(kept["records"]))]
                for record in records if config.keep_weights == "each" else []:
                    record.weights = [kept[f"kept_{record.epoch}_{i}"] for i in range(n)]
                weights, first, second = (
                    [kept[f"{name}_{i}"] for i in range(n)] for name in ("weights", "first", "second")
                )
                (n_updates,) = {int(kept[f"updates_{i}"]) for i in range(n)}  # one number, with each layer
                state = State(weights, first, second, n_updates)
    except Exception as error:  # the libraries raise all kinds of errors on a damaged file
        raise BatsLabError(f"The checkpoint {path} cannot be read ({error}); move it away to start anew.") from error
    if other:
        raise BatsLabError(f"The checkpoint {path} is of a run {other}; move it away to start anew.")
    return state, records


def _record(values: dict[str, Any]) -> EpochRecord:
    return EpochRecord(
        **{
            **values,
            "train": _pass(values["train"]),
            "test": _pass(values["test"]),
            "validation": _pass(values["validation"]) if values.get("validation") else None,
            "weight_norm": np.array(values["weight_norm"]),
        }
    )


def _pass(values: dict[str, Any]) -> Pass:
    arrays = {k: np.array(v) for k, v in values.items() if isinstance(v, list) and k != "fired"}
    return Pass(**{**values, **arrays, "fired": [np.array(v, bool) for v in values["fired"]]})
