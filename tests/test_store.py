"""Results in an object store: a real S3 server, sweeps of this machine and of a cluster, and what may go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import xarray as xr
from clusters import Cluster
from runs import make_run
from stores import S3
from sweeping import SMALL, TRAIN, start_sweep, training_notebook, wait_for

from bats_lab.config import Config
from bats_lab.errors import BatsLabError, StoreError
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import open_run, pack, run_path, save_run
from bats_lab.runs.rerun import compare, rerun
from bats_lab.runs.results import open_results
from bats_lab.runs.store import Store, store_at
from bats_lab.sweeps import remote
from bats_lab.sweeps.cluster import ClusterPool
from bats_lab.sweeps.journal import read_status
from bats_lab.sweeps.notebooks import make_report
from bats_lab.sweeps.remote import StoreLock
from bats_lab.sweeps.search import Search, run_search
from bats_lab.sweeps.sweep import Execution, Run, run_sweep

#: A run that would tell of its first epoch for minutes, but ends when it is told to.
LONG = """
import json, os, time
from bats_lab.sweeps.execute import STATUS, stop_file
with open(os.environ[STATUS], "a") as told:
    told.write(json.dumps({"event": "epoch", "run": 0, "text": "epoch 1/9", "epoch": 1}) + "\\n")
end = time.monotonic() + 120
while time.monotonic() < end:
    time.sleep(0.1)
    if stop_file(os.environ[STATUS]).exists():
        raise RuntimeError("ended after being told")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    made = S3()
    made.wait()
    yield made
    made.end()


@pytest.fixture
def s3(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server with an empty bucket, and a machine that has no mirror yet."""
    for name, value in (server.environment | {"XDG_CACHE_HOME": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").mkdir("bucket")
    yield server
    server.refuse(False)
    fsspec.filesystem("s3").rm("bucket", recursive=True)


def objects(pattern: str = "**") -> dict[str, Any]:
    """Objects of the bucket with the time of their last writing."""
    files = fsspec.filesystem("s3")
    files.invalidate_cache()
    found = files.glob(f"bucket/{pattern}", detail=True)
    return {name: about["LastModified"] for name, about in found.items() if about["type"] == "file"}


def running(url: str) -> list[str]:
    """What the runs at work in a store tell of their last epoch."""
    with contextlib.suppress(FileNotFoundError):  # nothing is there yet
        return [run.text for run in read_status(url).running if run.text]
    return []


def another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))


def options(tmp_path: Path) -> dict[str, Any]:
    return {"notebook": training_notebook(tmp_path / "t.ipynb", TRAIN), "progress": False}


def finished(folder: str) -> list[str]:
    """Runs that ended in a folder of the bucket, as often as journals tell of them."""
    lines = [line for name in objects(f"{folder}/journal/*") for line in fsspec.filesystem("s3").cat(name).splitlines()]
    return sorted(line["run"] for line in map(json.loads, lines) if line["event"] == "finished")


def assert_same_numbers(run: xr.Dataset, config: Config) -> None:
    """Check that a run is, bit for bit, what the same parameters give in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what so small a network does not learn
        same, lines = compare(run, run_experiment(config, threads=1))
    assert same, lines


# The mirror


def test_store_and_mirrors_of_two_machines_are_kept_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    one = Store(f"memory://{tmp_path.name}/results")
    path = save_run(make_run(), one.url)
    assert path.parent == one.folder and path.parent.name == "results" and one.pending() == []
    (one.folder / "notebooks").mkdir()
    (one.folder / "notebooks" / "run-a.running.jsonl").write_text("{}\n")
    one.put()
    another_machine(monkeypatch, tmp_path)
    other = Store(one.url)
    other.fetch("*")
    xr.testing.assert_identical(open_run(other.folder / path.name), open_run(f"{one.url}/{path.name}"))
    (one.folder / "notebooks" / "run-a.running.jsonl").unlink()
    one.put()
    time.sleep(2.1)  # what has been noted just now may have been put since the store was asked
    other.fetch("*")
    assert not list((other.folder / "notebooks").iterdir()) and (other.folder / path.name).exists()
    path.unlink()
    one.put()
    assert open_results(one.url).path.size == 1, "what is removed from a mirror stays in the store"


def test_object_of_a_bad_name_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = Store("memory://names/x")
    for name in ("run-../../../evil.nc", "notebooks/../../evil.ipynb", "notebooks/.ipynb", "run-.nc/evil.nc", "evil"):
        fsspec.filesystem("memory").store[f"/names/x/{name}"] = fsspec.implementations.memory.MemoryFile(
            None, f"/names/x/{name}", b"evil"
        )
    store.fetch("*")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nothing://bucket/x", ValueError, "is a URL of no store"),
        ("s3://", ValueError, "names no folder of a store"),
        ("s3://missing/x", StoreError, "s3://missing/x: the bucket does not exist."),
    ],
)
def test_url_that_leads_nowhere_is_refused_in_a_sentence(
    s3: S3, url: str, error: type[Exception], message: str
) -> None:
    for use in (open_results, read_status, lambda url: run_sweep(SMALL, url, progress=False)):
        with pytest.raises(error, match=message):
            use(url)


def test_runs_are_packed_in_folders_only() -> None:
    with pytest.raises(ValueError, match="in a folder of this machine"):
        pack("s3://bucket/x")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(StoreError, match=r"Install s3fs .*\. pip install 'bats-lab\[s3\]' has what S3 needs"):
        store_at("s3://bucket/x")


def test_folder_may_be_given_as_a_url(tmp_path: Path) -> None:
    path = save_run(make_run(), f"file://{tmp_path}")
    assert path.parent == tmp_path and open_results(f"file://{tmp_path}").path.item() == str(path)
    assert store_at(tmp_path) is None and store_at(str(tmp_path)) is None


# Sweeps


def test_sweep_into_a_store_is_read_on_another_machine_bit_for_bit(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(tmp_path) | {"jobs": 2, "threads": 1}
    there = run_sweep(SMALL | {"seed": [0, 1]}, "s3://bucket/a/b", **given)
    assert [o.status for o in there.outcomes] == ["finished"] * 2 and str(there) == "s3://bucket/a/b"
    names = sorted(run_path("", outcome.config).name for outcome in there.outcomes)
    [journal, *rest] = sorted(name.removeprefix("bucket/a/b/") for name in objects())
    notebooks = [f"notebooks/{name.replace('.nc', '.ipynb')}" for name in names]
    assert journal.startswith("journal/") and rest == notebooks + names, "and no lock is left"
    another_machine(monkeypatch, tmp_path)
    assert str(read_status("s3://bucket/a/b")).startswith("s3://bucket/a/b: 2 of 2 runs done, 0 failed, 0 pending\n")
    for outcome in there.outcomes:
        assert_same_numbers(open_run(f"s3://bucket/a/b/{run_path('', outcome.config)}"), outcome.config)
    assert open_results("s3://bucket/a/b").weights.sizes["seed"] == 2
    with pytest.warns(UserWarning, match="did not spike once"):
        assert rerun(f"s3://bucket/a/b/{names[0]}")[0]
    again = run_sweep(SMALL | {"seed": [0, 1]}, "s3://bucket/a/b", **given)
    assert [o.status for o in again.outcomes] == ["skipped"] * 2
    notebook = training_notebook(tmp_path / "r.ipynb", "print(results_dir)")
    assert make_report("s3://bucket/a/b", notebook=notebook).exists() and "bucket/a/b/report.html" in objects()


def test_store_that_does_not_come_back_is_told_and_served_the_next_time(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 3.0)
    given = options(tmp_path)

    def shut(progress: Any) -> None:
        s3.refuse(progress.stage != "over" or progress.finished == 1)

    with (
        pytest.warns(UserWarning, match="cannot be reached"),
        pytest.raises(StoreError, match=r"\d files are kept in /"),
    ):
        run_sweep(SMALL, "s3://bucket/r", **given | {"progress": shut})
    s3.refuse(False)
    assert not objects("r/run-*.nc")
    assert [o.status for o in run_sweep(SMALL, "s3://bucket/r", **given).outcomes] == ["skipped"]
    assert len(objects("r/run-*.nc")) == 1 and "bucket/r/.lock" not in objects()


def test_sweep_killed_while_the_store_refuses_is_finished_by_the_same_command(s3: S3) -> None:
    store, arguments = Store("s3://bucket/k"), ("--seeds=4", "--jobs=1", "--epochs=40", "--quiet")
    with start_sweep("s3://bucket/k", *arguments) as process:
        wait_for(lambda: bool(objects("k/run-*.nc")), process)
        assert read_status("s3://bucket/k").at_work
        s3.refuse(True)
        wait_for(
            lambda: any(name.startswith("run-") for name in Store("s3://bucket/k").pending()) and s3.refused > 3,
            process,
        )
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    s3.refuse(False)
    first, kept = objects("k/run-*.nc"), [path.name for path in store.folder.glob("run-*.nc")]
    assert 1 <= len(first) < len(kept) and "bucket/k/.lock" in objects()
    times = {name: (store.folder / name).stat().st_mtime_ns for name in kept}
    with start_sweep("s3://bucket/k", *arguments) as process:
        _, errors = process.communicate(timeout=300)
    after = objects("k/run-*.nc")
    assert process.returncode == 0 and len(after) == 4 and after.items() >= first.items(), errors
    assert {name: (store.folder / name).stat().st_mtime_ns for name in kept} == times, "none is repeated"
    notebooks = {name.rpartition("/")[2].removesuffix(".ipynb") for name in objects("k/notebooks/*")}
    assert notebooks == {name.rpartition("/")[2].removesuffix(".nc") for name in after}
    assert not read_status("s3://bucket/k").at_work and "bucket/k/.lock" not in objects()


def test_search_goes_into_a_store_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    search = Search(SMALL | {"learning_rate": "1e-3..1e-2:log"}, trials=2)
    found = run_search(search, "memory://search/x", jobs=1, **options(tmp_path))
    assert [outcome.status for outcome in found.outcomes] == ["finished"] * 2
    another_machine(monkeypatch, tmp_path)
    assert open_results("memory://search/x").sizes["trial"] == 2
    again = run_search(search, "memory://search/x", jobs=1, **options(tmp_path))
    assert [outcome.status for outcome in again.outcomes] == ["skipped"] * 2
    with pytest.raises(ValueError, match="no worker of a cluster sees it"):
        ClusterPool("tcp://127.0.0.1:9", url="memory://search/x")


# Two at once


def test_second_sweep_is_refused_on_this_machine_and_on_another(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_HEARTBEAT", 0.5)
    monkeypatch.setattr(remote, "_EVERY", 0.2)
    with StoreLock(Store("s3://bucket/x")):
        with pytest.raises(BatsLabError, match=r"Another sweep is at work in s3://bucket/x \(process \d+\)"):
            StoreLock(Store("s3://bucket/x"))
        another_machine(monkeypatch, tmp_path)
        with pytest.raises(BatsLabError, match=r"Another sweep is at work in s3://bucket/x \(process \d+ on "):
            StoreLock(Store("s3://bucket/x"))
    with StoreLock(Store("s3://bucket/x")):
        pass
    assert not objects("x/.lock")


def test_lock_of_a_dead_sweep_is_taken_and_a_sleeping_one_notices(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SILENCE", 1.0)
    monkeypatch.setattr(remote, "_HEARTBEAT", 3.0)
    with (
        pytest.raises(StoreError, match="Another sweep has taken over s3://bucket/x"),
        StoreLock(Store("s3://bucket/x")) as asleep,
    ):
        another_machine(monkeypatch, tmp_path)
        with StoreLock(Store("s3://bucket/x")) as lock:
            time.sleep(4)
            lock.check()
            with pytest.raises(BatsLabError, match="Another sweep has taken over"):
                asleep.check()


def test_two_sweeps_started_at_once_do_each_run_once(s3: S3, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bats_lab", "sweep", "--out=s3://bucket/t", "--no-report", "--n-train=200"]
    command += ["--n-test=100", "--hidden=20", "--threshold-output=0.1", "--epochs=2", "--seeds=2", "--quiet"]
    both = [
        subprocess.Popen(
            command,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / machine)},
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for machine in "ab"
    ]
    errors = [process.communicate(timeout=300)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 1]), errors
    assert codes == [0, 0] or any("Another sweep is at work in s3://bucket/t" in text for text in errors)
    assert finished("t") == sorted(name.rpartition("/")[2].removesuffix(".nc") for name in objects("t/run-*.nc"))
    assert len(finished("t")) == 2


# Clusters


@pytest.fixture(scope="module")
def cluster(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Workers that share no folder with the sweep."""
    own = tmp_path_factory.mktemp("workers")
    made = Cluster(own, **server.environment, XDG_CACHE_HOME=str(own / "cache"))
    yield made
    made.end()


def test_cluster_that_shares_nothing_but_a_store_gives_the_same_runs(s3: S3, cluster: Cluster, tmp_path: Path) -> None:
    given = options(tmp_path) | {"cluster": cluster.address}
    broken = given | {"notebook": training_notebook(tmp_path / "f.ipynb", "raise ValueError('as planned')")}
    report = run_sweep(SMALL, "s3://bucket/c", **broken)
    assert [outcome.reason for outcome in report.failed] == ["ValueError: as planned"]
    [name] = objects("c/notebooks/*")
    assert name.endswith(".failed.ipynb")
    report = run_sweep(SMALL | {"seed": [0, 1]}, "s3://bucket/c", **given)
    assert [outcome.status for outcome in report.outcomes] == ["finished"] * 2
    for outcome in report.outcomes:
        assert_same_numbers(open_run(f"s3://bucket/c/{run_path('', outcome.config)}"), outcome.config)
    assert sorted(name.rpartition("/")[2] for name in objects("c/notebooks/*")) == sorted(
        run_path("", outcome.config).with_suffix(".ipynb").name for outcome in report.outcomes
    )


def test_run_of_a_cluster_that_loses_is_ended_through_the_store(s3: S3, cluster: Cluster, tmp_path: Path) -> None:
    class Judge:
        def epoch(self, run: Run, told: Any) -> bool:
            return True

        def over(self, outcome: Any) -> None:
            self.outcome = outcome

    notebook, judge, config = training_notebook(tmp_path / "t.ipynb", LONG), Judge(), Config(**SMALL)
    with StoreLock(Store("s3://bucket/l"), watches=True) as lock:
        mirror = Store("s3://bucket/l").folder
        run = Run(config, "losing", mirror / "notebooks" / run_path("", config).with_suffix(".ipynb"))
        execution = Execution([run], lambda config: False, 1, 1, lambda state: None, lock, judge)
        execution.cluster = cluster.address
        given = {"results_dir": str(mirror), "data_dir": None, "device": "cpu", "threads": 1, "checkpoint": False}
        [outcome] = execution.run([[run]], [config], notebook, given, None)
    assert outcome == judge.outcome and outcome.reason == "RuntimeError: ended after being told"


def test_worker_killed_and_store_refusing_cost_a_cluster_no_run(s3: S3, cluster: Cluster) -> None:
    with start_sweep("s3://bucket/w", f"--cluster={cluster.address}", "--epochs=99", "--seeds=3", "--quiet") as process:
        wait_for(lambda: bool(running("s3://bucket/w")), process)
        cluster.workers()[0].kill()
        s3.refuse(True)
        wait_for(lambda: s3.refused > 10, process)
        s3.refuse(False)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0 and len(objects("w/run-*.nc")) == 3 and "Traceback" not in errors, errors
    assert finished("w") == sorted(name.rpartition("/")[2].removesuffix(".nc") for name in objects("w/run-*.nc"))
    assert not [name for name in objects() if ".running" in name or ".lock" in name]
