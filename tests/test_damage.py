"""Files with a few altered bytes: refused in a sentence or read right, without a hang and without much memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from damage import attempts
from runs import CLASSES, made_up_data, made_up_records, make_run

from bats_lab.config import Config, parameters
from bats_lab.data.readers import read_idx, read_npz
from bats_lab.data.registry import IdxFile
from bats_lab.engine import State
from bats_lab.errors import BatsLabError, DataError, ResultsError
from bats_lab.files import SEAL_SIZE
from bats_lab.network.feedforward import Network
from bats_lab.runs.checkpoints import open_checkpoint, save_checkpoint
from bats_lab.runs.files import is_finished, open_dataset, open_run, pack, save_dataset, save_run
from bats_lab.runs.results import open_results
from bats_lab.studies.chip.deployment import MEASURED, deployment_path, described, open_deployment
from bats_lab.studies.experiments import experiment_path, open_experiment

CONFIG = Config(hidden=(6,), epochs=2, n_train=20, n_test=20, keep_samples=2)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Alter bytes here and there, or cut, move, repeat or blank a part."""
    new = bytearray(content)
    at, other = sorted(rng.integers(0, len(new), 2).tolist())
    part = slice(at, min(other, at + int(rng.integers(1, 4096))))
    match rng.integers(0, 8):
        case 0:
            del new[at:]
        case 1:
            del new[part]
        case 2:
            new[part] = bytes(len(new[part]))
        case 3:
            new[at:at] = new[part]
        case 4:
            new += rng.bytes(int(rng.integers(1, 200)))
        case 5:
            new[at : at + 8] = int(rng.integers(0, 2**62)).to_bytes(8, "little")
        case _:
            for i in rng.integers(0, len(new), rng.integers(1, 9)):
                new[i] = rng.integers(0, 256)
    return bytes(new)


def survive(path: Path, read: Callable[[], Any], allowed: tuple[type[Exception], ...]) -> None:
    """Read a file that is altered again and again; without an error it says what it said before."""
    honest, content = read(), path.read_bytes()
    tracemalloc.start()
    read()
    most = 4 * max(tracemalloc.get_traced_memory()[1], len(content)) + 2_000_000
    rng = np.random.default_rng(int(hashlib.md5(content[:64]).hexdigest()[:8], 16))
    try:
        for i in range(attempts()):
            path.write_bytes(mutated(content, rng))
            os.utime(path, ns=(i, i))
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            try:
                assert_same(read(), honest)
            except allowed as error:
                assert str(error) and "\n" not in str(error)
            assert tracemalloc.get_traced_memory()[1] - before < most, i
    finally:
        tracemalloc.stop()
        path.write_bytes(content)


def assert_same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, xr.Dataset):
        xr.testing.assert_identical(found, wanted)
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif wanted is not ...:
        np.testing.assert_array_equal(found, wanted)


# A test a reader


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("array", ["x_train", "y_train"])
def test_damaged_idx_file(tmp_path: Path, array: str, compressed: bool) -> None:
    shape = (40, 28, 28) if array[0] == "x" else (40,)
    content = np.random.default_rng(0).integers(0, 10, shape, dtype=np.uint8)
    plain = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + content.tobytes()
    path = tmp_path / "digits"
    path.write_bytes(gzip.compress(plain) if compressed else plain)
    file = IdxFile("digits", array, 40, hashlib.md5(plain).hexdigest())

    def read() -> Any:
        found, difference = read_idx(file, path, 10)
        return content if difference else found

    survive(path, read, (DataError,))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz_file(tmp_path: Path, save: Callable[..., None]) -> None:
    data, path = made_up_data(), tmp_path / "own.npz"
    save(path, **{key: getattr(data, key) for key in ("x_train", "y_train", "x_test", "y_test")})
    survive(path, lambda: list(read_npz(path)[0].values()), (DataError,))


def test_damaged_run(tmp_path: Path) -> None:
    path = save_run(make_run(), tmp_path)
    survive(path, lambda: open_run(path), (ResultsError,))


def test_damaged_run_in_a_folder(tmp_path: Path) -> None:
    path = save_run(make_run(), tmp_path)

    def read() -> Any:
        shutil.rmtree(tmp_path / ".cache", ignore_errors=True)
        if not is_finished(tmp_path, CONFIG):
            raise ResultsError("it is not finished")
        return open_results(tmp_path).load()

    survive(path, read, (ResultsError,))


def test_damaged_run_without_a_seal(tmp_path: Path) -> None:
    path = tmp_path / "run.nc"
    make_run().to_netcdf(path, engine="netcdf4")

    def read() -> Any:
        open_run(path)
        return ...

    survive(path, read, (ResultsError,))


def test_damaged_packed_study(tmp_path: Path) -> None:
    for seed in (0, 1):
        save_run(make_run(seed=seed, keep_weights="none", keep_samples=0), tmp_path)
    path, _ = pack(tmp_path)
    survive(path, lambda: open_results(tmp_path).load(), (ResultsError, UserWarning))


def test_damaged_weights_of_a_run(tmp_path: Path) -> None:
    path = save_run(make_run(), tmp_path)
    results = open_results(tmp_path)
    survive(path, lambda: results.weights.values, (ResultsError,))


def test_damaged_deployment(tmp_path: Path) -> None:
    path = deployment_path(tmp_path, "mnist", 0)
    save_dataset(made_up_deployment().assign_attrs(dataset="mnist", seed=0), path)
    survive(path, lambda: open_deployment(tmp_path), (ResultsError,))


def made_up_deployment() -> xr.Dataset:
    labels = {"rule": ["drop", "graded"], "delta_t": [0.0, 0.004], "bits": [32, 4], "layer": ["output"], "time": [0.1]}
    dims = {name: ("rule", "delta_t", "bits", *rest) for name, rest in MEASURED.items()}
    rng = np.random.default_rng(0)
    return described({n: (d, rng.random([len(labels[k]) for k in d])) for n, d in dims.items()}, labels)


def test_damaged_experiment(tmp_path: Path) -> None:
    path = experiment_path(tmp_path, "quality", "mnist")
    save_dataset(xr.Dataset({"x": ("k", np.arange(9.0))}, {"k": list("abcdefghi")}, {"dataset": "mnist"}), path)
    survive(path, lambda: open_experiment(tmp_path, "quality")["mnist"], (ResultsError,))


def test_damaged_checkpoint(tmp_path: Path) -> None:
    path, data = tmp_path / "state.npz", made_up_data()
    weights = Network.from_config(CONFIG, 12, len(CLASSES)).weights
    save_checkpoint(path, CONFIG, data, State(weights, weights, weights, 7), made_up_records(CONFIG))

    def read() -> Any:
        state, records = open_checkpoint(path, CONFIG, data)
        return [*state.weights, *state.first, *state.second, state.n_updates, [r.weight_norm for r in records]]

    survive(path, read, (BatsLabError,))


def test_damaged_network(tmp_path: Path) -> None:
    Network.from_config(CONFIG, 12, 3).save(path := tmp_path / "network.npz")
    survive(path, lambda: Network.load(path).weights, (ValueError,))


def test_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    path = save_run(make_run(), tmp_path)
    survive(tmp_path / ".cache" / path.name, lambda: open_results(tmp_path, large=False), ())


def test_parameters_of_any_kind_are_refused_in_a_sentence() -> None:
    rng = np.random.default_rng(0)
    values: list[Any] = [None, True, -1, 0, 2**70, 10**400, -0.0, 1e-320, 1e308, float("nan"), float("inf"), "", "0.1"]
    values += ["\x00", "<b>", [], [[]], [1e9], {}, {"a": 1}, [None], ["x"], [0.2] * 9, "1e400ms", "mnist", b"\xff"]
    names = [p.name for p in parameters()]
    for _ in range(attempts(4)):
        chosen = rng.choice(names, rng.integers(1, 4))
        try:
            Config.from_dict({str(name): values[rng.integers(len(values))] for name in chosen})
        except (ValueError, TypeError) as error:
            assert "\n" not in str(error) and len(str(error)) < 1000


# What is no accident


def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path) -> None:
    path = save_run(make_run(), tmp_path)
    os.mkfifo(tmp_path / "run-x.nc")
    os.mkfifo(tmp_path / "deployment-mnist-seed0.nc")
    with pytest.warns(UserWarning, match=r"run-x\.nc cannot be read .* it is no regular file"):
        assert open_results(tmp_path).path.item() == str(path)
    for read in (open_run, open_dataset):
        with pytest.raises(ResultsError, match="no regular file"):
            read(tmp_path / "run-x.nc")
    with pytest.raises(ResultsError, match="no regular file"):
        open_deployment(tmp_path)
    for refusing in (Network.load, read_npz):
        with pytest.raises((ValueError, DataError), match="no regular file"):
            refusing(tmp_path / "run-x.nc")


def test_a_small_archive_that_unpacks_to_very_much_is_refused_by_its_headers(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 28, 28)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            with archive.open(f"{name}.npy", "w") as stream:
                stream.write(header.getvalue())
                for _ in range(20):
                    stream.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"it unpacks to 84 MB, which 0\.1 MB cannot honestly hold"):
        read_npz(tmp_path / "bomb.npz")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_file_whose_reading_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bats_lab.runs import netcdf

    make_run().to_netcdf(tmp_path / "run.nc", engine="netcdf4")
    monkeypatch.setattr(netcdf, "_PATIENCE", 1)
    loop = "netcdf._read = lambda *_: any(iter(int, 1)); netcdf.serve()"
    monkeypatch.setattr(netcdf, "_SERVE", netcdf._SERVE.replace("netcdf.serve()", loop))
    netcdf._READER.end()
    with pytest.raises(ResultsError, match="reading it took more than 1 s"):
        open_run(tmp_path / "run.nc")
    monkeypatch.undo()
    open_run(tmp_path / "run.nc")


def test_a_seal_that_is_damaged_or_cut_off_makes_no_unsealed_file(tmp_path: Path) -> None:
    path = save_run(make_run(), tmp_path)
    content = path.read_bytes()
    for altered in (content[:-1], content[:-SEAL_SIZE], content + b"x", content[:-SEAL_SIZE] + bytes(SEAL_SIZE)):
        path.write_bytes(altered)
        with pytest.raises(ResultsError, match="it is damaged"):
            open_run(path)


def test_files_of_a_newer_version_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bats_lab.files.__version__", "9.1.0")
    text = json.dumps(CONFIG.to_dict() | {"phase": 1})
    run = make_run()
    run["config"] = run.config.copy(data=np.full((1,) * 4, text))
    monkeypatch.setattr("bats_lab.runs.files.validate_run", lambda dataset: None)
    monkeypatch.setattr("bats_lab.runs.files._config_of", lambda dataset: CONFIG)
    path = save_run(run, tmp_path)
    shutil.rmtree(tmp_path / ".cache")
    monkeypatch.undo()
    newer = r"'phase' is no parameter .* written by bats_lab 9\.1\.0, newer than this 0\.1\.0"
    with pytest.raises(ResultsError, match=newer):
        open_run(path)
    with pytest.warns(UserWarning, match=newer), pytest.raises(ResultsError, match="no finished run"):
        open_results(tmp_path)
    path.write_bytes(path.read_bytes()[:-SEAL_SIZE] + b"bats_lab seal 2\n" + bytes(48))
    with pytest.raises(ResultsError, match="a newer version of bats_lab"):
        open_run(path)


def test_other_programs_read_what_is_sealed(tmp_path: Path) -> None:
    run = make_run()
    with xr.open_dataset(save_run(run, tmp_path)) as opened:
        xr.testing.assert_equal(opened.drop_vars("config"), run.drop_vars("config"))
    Network.from_config(CONFIG, 12, 3).save(tmp_path / "network.npz")
    with np.load(tmp_path / "network.npz") as arrays:
        assert "weights_0" in arrays
    assert zipfile.ZipFile(tmp_path / "network.npz").testzip() is None


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda d: d.expand_dims(phase=[1]), "'phase' is no dimension of one"),
        (lambda d: d.drop_vars("accuracy"), "it lacks 'accuracy'"),
        (lambda d: d.assign_coords(rule=["drop", "magic"]), "'magic' is no collision rule"),
        (lambda d: d.drop_attrs(deep=False), "it lacks the attribute 'dataset'"),
    ],
)
def test_a_deployment_of_another_shape_is_refused_in_a_sentence(
    tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset], reason: str
) -> None:
    path = deployment_path(tmp_path, "mnist", 0)
    save_dataset(change(made_up_deployment().assign_attrs(dataset="mnist", seed=0)), path)
    with pytest.raises(ResultsError, match=f"is no deployment of a network: {reason}"):
        open_deployment(tmp_path)
