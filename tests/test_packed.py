"""Packed studies: many runs in one file, each as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr
from runs import make_run

from bats_lab.cli import main
from bats_lab.errors import ResultsError
from bats_lab.runs import files
from bats_lab.runs.experiment import config_of
from bats_lab.runs.files import is_finished, open_run, pack, run_path, save_run, unpack
from bats_lab.runs.results import open_results
from bats_lab.sweeps.journal import read_status

SMALL = {"keep_weights": "none", "keep_samples": 0}
#: Runs that differ in what they have: epochs, layers, rule, and one that keeps its weights.
KINDS = ({}, {"seed": 1}, {"epochs": 3}, {"hidden": (6, 5)}, {"delta_t": 0.004, "rule": "merge"}, {"seed": 7})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of runs of several kinds."""
    for kind in KINDS[:-1]:
        save_run(make_run(**SMALL | kind), tmp_path / "study")
    save_run(make_run(**KINDS[-1]), tmp_path / "study")
    return tmp_path / "study"


def test_packed_runs_are_what_they_were_bit_for_bit(folder: Path) -> None:
    paths = sorted(folder.glob("run-*.nc"))
    before, whole = {path: open_run(path) for path in paths}, open_results(folder).load()
    packed, n = pack(folder)
    assert n == len(KINDS) - 1 and packed.name == "study-study.nc"
    assert sorted(folder.glob("*.nc")) == sorted([packed, *(p for p in paths if "weights" in before[p])])
    for path, run in before.items():
        xr.testing.assert_identical(open_run(path), run)
        assert is_finished(folder, config_of(run))
    xr.testing.assert_identical(open_results(folder).load(), whole)
    assert read_status(folder).runs_in_folder == len(KINDS)
    assert unpack(folder) == len(KINDS) - 1 and sorted(folder.glob("*.nc")) == paths
    for path, run in before.items():
        xr.testing.assert_identical(open_run(path), run)


def test_new_runs_join_those_packed_before(folder: Path) -> None:
    pack(folder)
    save_run(make_run(**SMALL, seed=5), folder)
    again = make_run(**SMALL)
    again["loss"] += 1.0
    save_run(again, folder)  # a run made anew stands above the packed one
    both = open_results(folder)
    assert pack(folder)[1] == len(KINDS)
    xr.testing.assert_identical(open_results(folder).load(), both.load())
    xr.testing.assert_identical(open_run(run_path(folder, config_of(again)))["loss"], again["loss"])


def test_nothing_is_lost_where_packing_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in folder.glob("*.nc")}

    def write_all_but_one(path: Path, runs: dict) -> None:
        write_packed(path, dict(list(runs.items())[1:]))

    write_packed = files.write_packed
    monkeypatch.setattr(files, "write_packed", write_all_but_one)
    with pytest.raises(ResultsError, match="the packed runs are not the same"):
        pack(folder)
    assert {path: path.read_bytes() for path in folder.glob("*.nc")} == before


def test_commands_pack_and_unpack(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(folder)]) == 0 and "study-study.nc: 5 runs" in capsys.readouterr().out
    assert main(["unpack", str(folder)]) == 0 and "5 runs have files" in capsys.readouterr().out
    assert main(["unpack", str(folder)]) == 1 and "holds no packed study" in capsys.readouterr().err
    assert main(["pack", str(tmp_path / "none")]) == 1 and "no folder of results" in capsys.readouterr().err


def test_other_programs_read_a_packed_study(folder: Path) -> None:
    packed, _ = pack(folder)
    with xr.open_dataset(packed) as study:
        assert study.accuracy.dims == ("run", "split", "epoch") and study.accuracy.attrs["units"] == "1"
        row = study.isel(run=study.file.values.tolist().index(run_path(folder, config_of(make_run(**SMALL))).name))
        assert row.accuracy.sel(split="test", epoch=3).isnull() and row.layer_size.sel(layer="hidden_2").isnull()
