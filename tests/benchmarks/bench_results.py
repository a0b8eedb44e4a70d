"""How long results take to open, and how much memory: cold, from the copies in .cache, and files without a seal.

    python tests/benchmarks/bench_results.py [--runs 10000]

The runs are those of a real one, trained here on a few digits, with other seeds, steps and numbers. Each measurement is
a process of its own: CPU-seconds and the growth of its memory count from where everything is imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.files import SEAL_SIZE, open_file, read_seal, sealed
from bats_lab.runs.cache import SmallRun
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import open_run, run_path, save_run

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
    """Write runs that differ in seed, time step and numbers from one real run, whose weights and spikes they have."""
    config = Config(hidden=100, n_train=500, n_test=200, batch_size=10, threshold_output=0.5, epochs=10)
    with warnings.catch_warnings(action="ignore"):
        real = save_run(run_experiment(config), folder)
    with open_file(real) as file:
        seal = read_seal(file)
        content = file.read()
    assert seal is not None
    netcdf = content[: -SEAL_SIZE - len(seal.appendix)]
    small = SmallRun.unpacked(real, seal.appendix)
    rng = np.random.default_rng(0)
    for i in range(number):
        own = config.replace(seed=i // 20, delta_t=0.0005 * (i % 20))
        numbers = np.frombuffer(small.numbers, small.layout.numbers).copy()
        for name in ("accuracy", "loss", "spike_count"):
            numbers[name] = rng.random(numbers[name].shape)
        texts = small.texts | {"config": own.to_json()}
        run = dataclasses.replace(small, path=run_path(folder, own), texts=texts, numbers=numbers.tobytes())
        run.path.write_bytes(sealed(netcdf, run.packed()))


def unseal(folder: Path) -> None:
    """Write the runs anew as another program would, with seeds from 0 on."""
    for seed, path in enumerate(folder.glob("run-*.nc")):
        run: xr.Dataset = open_run(path)
        config = json.dumps(json.loads(run.config.item()) | {"seed": seed})
        run = run.assign(config=run.config.copy(data=np.full((1,) * 4, config)))
        run.assign_coords(seed=run.seed.copy(data=[seed])).to_netcdf(path, engine="netcdf4")


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
        make_runs(folder, number)
        measure("cold", folder)
        measure("from .cache", folder)
        few.mkdir()
        for path in sorted(folder.glob("run-*.nc"))[:100]:
            shutil.copy(path, few)
        unseal(few)
        measure("cold, without seals", few)


if __name__ == "__main__":
    main()
