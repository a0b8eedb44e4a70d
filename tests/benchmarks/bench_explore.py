"""How long explorers take to answer: from a control's change to the message that goes to the browser.

Networks are of the size of Table 1, 784-800-10. Stored results should answer within 100 ms, networks that are run in
300 ms; what the browser then takes to draw is not in here.

    python tests/benchmarks/bench_explore.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from typing import Any

from bats_lab import Config, explore, run_experiment, save_run

REPEATS = 7

#: Explorer, what it has to do, its limit in ms, and the values that its controls are given in turn.
CASES: list[tuple[str, str, float, list[tuple[str, list[Any]]]]] = [
    (
        "explore_rasters",
        "network is run",
        300,
        [
            ("sample", list(range(1, 1 + REPEATS))),
            ("delta_t", [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007]),
            ("rule", ["merge", "defer", "graded", "clocked", "drop", "merge", "defer"]),
            ("window", [(10.0 * i, 100.0) for i in range(1, 1 + REPEATS)]),
        ],
    ),
    (
        "explore_digit",
        "network is run",
        300,
        [
            ("sample", list(range(1, 1 + REPEATS))),
            ("delta_t", [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007]),
            ("time", [20.0 * i for i in range(1, 1 + REPEATS)]),
        ],
    ),
    (
        "explore_weights",
        "stored",
        100,
        [
            ("neuron", list(range(1, 1 + REPEATS))),
            ("left", [0.004, 0.0, 0.004, 0.0, 0.004, 0.0, 0.004]),
            ("layer", ["output", "hidden_1", "output", "hidden_1", "output", "hidden_1", "output"]),
        ],
    ),
    (
        "explore_tradeoff",
        "stored",
        100,
        [
            ("cost", ["synaptic_events", "decision_time", "spike_count", "first_spike_time"]),
            ("delta_t", [(0.004,), (0.0,), (0.004,), (0.0,), (0.004,), (0.0,), (0.0, 0.004)]),
            ("run", [(0.004, "drop", 0), (0.0, "drop", 0), (0.004, "drop", 1), (0.0, "drop", 1)]),
        ],
    ),
    ("explore_latency", "stored", 100, [("time", [20.0 * i for i in range(1, 1 + REPEATS)])]),
]


def main() -> None:
    """Print the time of every control."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        for seed in (0, 1):
            for delta_t in (0.0, 0.004):
                config = Config(dataset="mnist_small", n_train=200, n_test=100, epochs=1, delta_t=delta_t, seed=seed)
                save_run(run_experiment(config), folder)
        print(f"{'explorer':18} {'control':8} {'median':>8} {'slowest':>8}   limit")
        for name, kind, limit, controls in CASES:
            explorer = getattr(explore, name)(folder)
            for picture in explorer.pictures:
                picture.widget._view_count = 1  # as if it were on the screen
            for control, values in controls:
                times = []
                for value in values:
                    begin = time.perf_counter()
                    explorer.controls[control].value = value
                    times.append(1e3 * (time.perf_counter() - begin))
                print(
                    f"{name:18} {control:8} {statistics.median(times):5.0f} ms {max(times):5.0f} ms   "
                    f"{limit:.0f} ms ({kind})"
                )


if __name__ == "__main__":
    main()
