"""The study of clocks of training and test: its shape, its pictures and tables, and, with snnTorch, what it trains."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from pictures import draw, elements

from bats_lab.cli import main
from bats_lab.data.datasets import load_dataset
from bats_lab.errors import ResultsError
from bats_lab.network.comparison import decide
from bats_lab.network.feedforward import Network
from bats_lab.network.graphs import graph_of_network
from bats_lab.network.platforms import profile_named, simulate
from bats_lab.runs.files import save_dataset
from bats_lab.runs.training import input_spikes
from bats_lab.studies import transfer
from bats_lab.studies.experiments import experiment_path
from bats_lab.studies.transfer.study import METHODS, transfer_config, transfer_configs
from bats_lab.studies.transfer.surrogate import evaluate_on_clock, train_on_clock

with_snntorch = pytest.mark.skipif(find_spec("snntorch") is None, reason="needs snntorch")


def made(accuracy: np.ndarray) -> xr.Dataset:
    """Return results (trained_by, trained_at, tested_at, seed) over both methods, 0, 1 and 8 ms."""
    steps = [0.0, 0.001, 0.008]
    coords = {"trained_by": list(METHODS), "trained_at": steps, "tested_at": steps, "seed": [0, 1, 2]}
    return xr.Dataset({"accuracy": (tuple(coords), accuracy)}, coords)


def results() -> dict[str, xr.Dataset]:
    accuracy = np.broadcast_to(np.array([0.9, 0.91, 0.92]), (2, 3, 3, 3)).copy()
    accuracy[1, 0] = np.nan  # snnTorch has no continuous time
    accuracy[1, 1, 1] -= [0.05, 0.06, 0.055]
    return {"mnist": made(accuracy)}


def test_both_methods_start_from_the_same_runs_but_for_the_learning_rate() -> None:
    configs = transfer_configs(seeds=2)
    assert len({c.identity for c in configs}) == len(configs) == 2 * 5 * 2
    for dataset in ("mnist", "yin_yang"):
        ours, theirs = (transfer_config(dataset, method, 0.004, 1) for method in METHODS)
        assert ours in configs
        assert ours.replace(learning_rate=theirs.learning_rate) == theirs


@pytest.mark.skipif(find_spec("snntorch") is not None, reason="is about a machine without snntorch")
def test_study_says_at_once_that_snntorch_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "transfer", "--quick", "--out", str(tmp_path)]) != 0
    assert "needs torch and snntorch: pip install snntorch brings both." in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_tables_hold_every_clock_and_the_loss_of_a_finer_one() -> None:
    table = transfer.transfer_table(results())
    assert table["trained at"].tolist() == ["continuous", "1 ms", "8 ms", "1 ms", "8 ms"]
    assert table["8 ms"].tolist() == ["91.0 ± 1.0"] * 5
    assert table["1 ms"].tolist()[3] == "85.5 ± 0.9"
    own = transfer.own_clock_table(results()).set_index(["trained by", "trained and tested at"])
    assert own.loc[("snntorch", "1 ms"), "less the coarsest (points)"].startswith("-5.5 [")
    assert float(own.loc[("snntorch", "1 ms"), "p"]) < 0.01
    assert own.loc[("exact", "1 ms"), "less the coarsest (points)"].startswith("+0.0")


def test_figure_has_a_table_for_each_method() -> None:
    figure = transfer.plot_transfer(results(), title="clocks")
    draw(figure)
    texts = [str(t) for labels in elements(figure, hv.Labels) for t in labels.dimension_values("text")]
    assert texts.count("91.0") == 9 + 5 and texts.count("85.5") == 1


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    save_dataset(results()["mnist"], experiment_path(tmp_path, "transfer_exact_1ms", "mnist"))
    with pytest.raises(ResultsError, match="lacks the attribute 'dataset'"):
        transfer.open_transfer(tmp_path)


@with_snntorch
def test_snntorchs_clock_is_that_of_the_platforms_with_exact_decays() -> None:
    config = transfer_config("mnist_small", "snntorch", 0.004, 0)
    data = load_dataset("mnist_small")
    networks = [Network.from_config(config.replace(seed=s), 784, 10, device="cpu") for s in (0, 1)]
    x, y = data.x_test[:20], data.y_test[:20]
    found = evaluate_on_clock(config, [n.weights for n in networks], x, y)
    profile = replace(profile_named("snntorch"), decay="exponential", gain="exponential", dtype="float64")
    for i, network in enumerate(networks):
        graph = graph_of_network(network)
        spikes = simulate(graph, input_spikes(x, config), profile, delta_t=0.004, duration=0.2).spikes
        counts = [len(trains.times) / len(x) for trains in spikes.values()]
        np.testing.assert_allclose(found.spike_count[i], counts, rtol=0.01)
        assert found.accuracy[i] == pytest.approx(np.mean(decide(spikes["layer2"]) == y), abs=0.05)


@with_snntorch
def test_training_by_surrogate_gradients_learns_and_seeds_do_not_mix() -> None:
    configs = [transfer_config("mnist_small", "snntorch", 0.008, s).replace(n_train=1000) for s in (0, 1)]
    data = load_dataset("mnist_small")
    both = train_on_clock(configs, data, slope=25.0)
    [alone] = train_on_clock(configs[1:], data, slope=25.0)
    for together, own in zip(both[1], alone, strict=True):
        np.testing.assert_allclose(together, own, atol=1e-3)
    start = [Network.from_config(c, 784, 10, device="cpu").weights for c in configs]
    before, after = (evaluate_on_clock(configs[0], w, data.x_test[:300], data.y_test[:300]) for w in (start, both))
    assert (after.accuracy > before.accuracy + 0.3).all()
    with pytest.raises(ValueError, match="differ in their seeds only"):
        train_on_clock([configs[0], configs[1].replace(epochs=2)], data, slope=25.0)


@with_snntorch
def test_study_is_run_drawn_and_taken_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "transfer", "--quick", "--jobs", "1", "--quiet", "--out", str(tmp_path)]
    assert main(command) == 0
    folder = tmp_path / "quick_transfer"
    assert len(list(folder.glob("experiment-*"))) == 2 and (folder / "report.html").exists()
    [first] = transfer.open_transfer(folder).values()
    capsys.readouterr()
    assert main([*command, "--seeds", "2"]) == 0
    assert "snntorch, trained at 8 ms, seeds 1 …" in capsys.readouterr().err
    [both] = transfer.open_transfer(folder).values()
    assert both["seed"].values.tolist() == [0, 1]
    xr.testing.assert_equal(both.sel(seed=[0]), first)
