"""Training and evaluation of the working tree beside those of another revision, their steps interleaved in one run.

Each side runs in a process of its own, which has compiled before anything is timed. What it is asked to do is named by
`bats_lab.Config`, `bats_lab.load_dataset` and `bats_lab.train` alone, which every revision has.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Presets and time steps (s) that are compared, and samples of a step.
CASES = [("mnist", delta_t, 1000) for delta_t in (0, 0.001, 0.004, 0.008)] + [("fashion_mnist", 0.004, 300)]
NETWORKS = {"mnist": "784-800-10", "fashion_mnist": "784-400-400-10"}
ROOT = Path(__file__).parents[2]


def work(threads: int) -> None:
    """Carry out steps as they are asked for: train two epochs, tell the seconds of the second and of its test."""
    import bats_lab

    data = bats_lab.load_dataset("mnist_small")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(str(Path(bats_lab.__file__).parent)), file=answers, flush=True)
    for line in sys.stdin:
        preset, delta_t, n = json.loads(line)
        config = bats_lab.Config(dataset=preset).replace(
            dataset="mnist_small", delta_t=delta_t, n_train=n, n_test=1000, epochs=2
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = bats_lab.train(config, data, device="cpu", threads=threads).records[-1]
        print(json.dumps([record.train_seconds / n, record.test_seconds / 1000]), file=answers, flush=True)


class Side:
    """A revision at work in a process of its own."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(threads)],
            env=os.environ | {"PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.package = Path(str(self.answer()))
        if self.package != folder / "bats_lab":
            raise RuntimeError(f"{self.package} was loaded; it should have been {folder / 'bats_lab'}.")

    def ask(self, preset: str, delta_t: float, n: int) -> None:
        """Ask for a step, without waiting for it."""
        assert self._process.stdin is not None
        print(json.dumps([preset, delta_t, n]), file=self._process.stdin, flush=True)

    def answer(self) -> object:
        """Wait for what the last step gave."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("A side of the comparison ended; its message stands above.")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        with self._process:
            self._process.kill()


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Check a revision out into a folder that lasts as long as the comparison."""
    git = ["git", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory(prefix="bats_lab-bench-") as parent:
        folder = Path(parent).resolve() / "tree"
        subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(folder), revision], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(folder)], check=True)


def compare(revision: str, threads: int, seconds: float) -> None:
    """Print a table of the working tree (B) beside a revision (A); its steps take about `seconds`, compiling apart."""
    with checked_out(revision) as folder:
        sides: list[Side] = []
        try:
            print("compiling both sides …", file=sys.stderr, flush=True)
            sides += [Side(folder, threads), Side(ROOT, threads)]
            for side in sides:
                side.ask("mnist", 0.004, 100)
            for side in sides:
                side.answer()
            print(f"A: {revision}, B: the working tree; threads {threads or 'all'}; samples/s: medians")
            print(f"{'network':>15} {'Δt (ms)':>8} {'':>9} {'A':>9} {'B':>9}   B/A (min to max of pairs)")
            for preset, delta_t, n in CASES:
                pairs = []
                begin = time.monotonic()
                while len(pairs) < 3 or time.monotonic() < begin + seconds / len(CASES):
                    pair = []
                    for side in sides:
                        side.ask(preset, delta_t, n)
                        pair.append(side.answer())
                    pairs.append(pair)
                for i, name in enumerate(("training", "evaluation")):
                    a, b = zip(*[(first[i], second[i]) for first, second in pairs], strict=True)
                    ratios = [old / new for old, new in zip(a, b, strict=True)]
                    print(
                        f"{NETWORKS[preset]:>15} {delta_t * 1e3:8g} {name:>10} {1 / statistics.median(a):8,.0f} "
                        f"{1 / statistics.median(b):9,.0f} {statistics.median(ratios):6.2f} "
                        f"({min(ratios):.2f} to {max(ratios):.2f} of {len(pairs)})",
                        flush=True,
                    )
        finally:
            for side in sides:
                side.close()


if __name__ == "__main__":
    work(int(sys.argv[1]))
