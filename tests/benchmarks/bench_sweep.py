"""What a run of a sweep costs beside its training and evaluation: CPU time and wall time, run by run.

Sweeps of a few and of some more runs are compared, each as a process of its own, so that what a sweep costs once
cancels out; what remains is held against what its epochs took by the clock. On a busy machine the CPU time tells.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bats_lab.runs.results import open_results


def sweep(n: int, options: list[str]) -> tuple[float, float, float]:
    """Sweep over `n` seeds, one run at a time; return its CPU and wall time, and that of its epochs, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bats_lab", "sweep", f"--seeds={n}", f"--out={folder}", *options]
        command += ["--jobs=1", "--no-report", "--quiet"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        results = open_results(Path(folder))
        epochs = float((results["train_seconds"] + results["test_seconds"]).sum())
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return cpu, wall, epochs


def main() -> None:
    """Print a line for a tiny network and one for the default network on few images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="runs beyond the first two (default: %(default)s)")
    n = parser.parse_args().runs
    print(f"{'s a run':28} {'CPU':>6} {'wall':>6} {'epochs':>7} {'wall beside them':>17}")
    few = ["--n-train=200", "--n-test=100", "--epochs=1", "--delta-t=4ms"]
    for name, options in (("784-20-10", ["--hidden=20", "--threshold-output=0.1"]), ("784-800-10", [])):
        once, more = sweep(2, few + options), sweep(2 + n, few + options)
        cpu, wall, epochs = ((b - a) / n for a, b in zip(once, more, strict=True))
        print(
            f"{name + ', 200 images, 1 epoch':28} {cpu:6.2f} {wall:6.2f} {epochs:7.2f} {wall - epochs:17.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
