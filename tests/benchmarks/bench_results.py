"""How long results take to open, and how much memory: cold, from the copies in .cache, and files without a seal.

    python tests/benchmarks/bench_results.py [--runs 10000]

The runs are those of a real one, trained here on a few digits, with other seeds, steps and numbers. Each measurement is
a process of its own: CPU-seconds and the growth of its memory count from where everything is imported.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import open_run, save_run

OPEN = """
import resource, sys, time
import bats_lab.runs.files, netCDF4
from bats_lab.runs.results import open_results

def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

def peak():  # in MB
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1e3

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak counts from here
before, at, memory = cpu(), time.perf_counter(), peak()
results = open_results(sys.argv[1])
wall, memory = time.perf_counter() - at, peak() - memory
from bats_lab.runs.netcdf import _READER
_READER.end()  # its time counts once it has ended
size = sum(v.nbytes for n, v in results.variables.items() if n not in bats_lab.runs.files.LARGE) / 1e6
print(results.config.size, cpu() - before, wall, memory, size)
"""


def make_runs(folder: Path, number: int) -> None:
    """Write runs that differ in seed, time step and numbers from one real run."""
    config = Config(hidden=100, n_train=500, n_test=200, batch_size=10, threshold_output=0.5, epochs=10)
    with warnings.catch_warnings(action="ignore"):
        run = run_experiment(config)
    rng = np.random.default_rng(0)
    for i in range(number):
        own = config.replace(seed=i // 20, delta_t=0.0005 * (i % 20))
        coords = {name: run[name].copy(data=[getattr(own, name)]) for name in ("seed", "delta_t")}
        values = {
            name: run[name].copy(data=rng.random(run[name].shape)) for name in ("accuracy", "loss", "spike_count")
        }
        save_run(
            run.assign(config=run.config.copy(data=np.full((1,) * 4, own.to_json())), **values).assign_coords(coords),
            folder,
        )


def unseal(folder: Path) -> None:
    """Write the runs anew as another program would."""
    for path in folder.glob("run-*.nc"):
        run: xr.Dataset = open_run(path)
        run.to_netcdf(path, engine="netcdf4")


def measure(what: str, folder: Path) -> None:
    """Open a folder in a new process and print what that took."""
    done = subprocess.run([sys.executable, "-c", OPEN, folder], capture_output=True, text=True, check=True)
    runs, cpu, wall, memory, size = map(float, done.stdout.split())
    print(
        f"{what:28} {runs:6.0f} runs: {cpu:7.2f} CPU-s ({1e3 * cpu / runs:6.2f} ms a run), {wall:7.2f} s; "
        f"memory +{memory:.0f} MB for {size:.0f} MB of results",
        flush=True,
    )


def main() -> None:
    """Print a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    number = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as place:
        folder, few = Path(place, "many"), Path(place, "few")
        start = time.process_time()
        make_runs(folder, number)
        print(f"{'written':28} {number:6} runs: {time.process_time() - start:7.2f} CPU-s")
        few.mkdir()
        for path in sorted(folder.glob("run-*.nc"))[:200]:
            shutil.copy(path, few)
        measure("cold", few)
        measure("from .cache", few)
        unseal(few)
        shutil.rmtree(few / ".cache")
        measure("cold, without seals", few)
        measure("from .cache", folder)


if __name__ == "__main__":
    main()
