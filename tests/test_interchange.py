"""Import and export in NIR: round trips, real files of others, and what is refused in a sentence."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate2d

from bats_lab import interchange
from bats_lab.cli import main
from bats_lab.errors import DataError
from bats_lab.network.feedforward import Network
from bats_lab.network.graphs import INPUT, Connection, Graph, Population, graph_of_network
from bats_lab.network.interchange import from_nir, load_nir, save_nir, to_network, to_nir
from bats_lab.network.platforms import simulate
from bats_lab.spikes.trains import Spikes

nir = pytest.importorskip("nir")
FILES = Path(os.environ.get("BATS_LAB_DATA", "")) / "nir"
real = pytest.mark.skipif(not (FILES / "lif_norse.nir").is_file(), reason="needs nir/ in BATS_LAB_DATA")


def lif(n: int, **options: Any) -> Any:
    values = {"tau": 0.0025, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.1, "v_reset": 0.0} | options
    return nir.LIF(**{name: np.full(n, value) for name, value in values.items()})


def built(nodes: dict[str, Any], edges: list[tuple[str, str]], n_inputs: int = 2, n_outputs: int = 2) -> Any:
    ends = {
        "input": nir.Input({"input": np.array([n_inputs])}),
        "output": nir.Output({"output": np.array([n_outputs])}),
    }
    return nir.NIRGraph(ends | nodes, edges, type_check=False)


def random_spikes(n: int, samples: int = 5, seed: int = 0) -> Spikes:
    rng = np.random.default_rng(seed)
    times = np.where(rng.random((samples, n, 4)) < 0.7, rng.uniform(0, 0.04, (samples, n, 4)), np.inf)
    return Spikes.from_padded(times)


def same_spikes(one: Graph, other: Graph, platform: str = "exact") -> int:
    spikes = random_spikes(one.n_inputs)
    pairs = [simulate(g, spikes, platform, delta_t=1e-4, duration=0.05).spikes for g in (one, other)]
    for a, b in zip(*(p.values() for p in pairs), strict=True):
        assert a.neuron.tolist() == b.neuron.tolist()
        np.testing.assert_allclose(a.times, b.times, rtol=1e-9)
    return sum(len(trains.times) for trains in pairs[0].values())


def test_trained_network_comes_back_as_it_went(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.uniform(-1, 1, (5, 3)), rng.uniform(-1, 1, (2, 5))]
    network = Network((3, 5, 2), thresholds=[0.2, 1.3], max_spikes=[9, 9], tau_syn=0.13, duration=0.2, weights=weights)
    save_nir(network, tmp_path / "net.nir")
    graph = load_nir(tmp_path / "net.nir")
    again = to_network(graph, duration=0.2)
    assert again.max_spikes == (9, 9)
    assert graph.pulse == 1e-3
    assert (again.sizes, again.thresholds, again.tau_syn) == (network.sizes, network.thresholds, network.tau_syn)
    for a, b in zip(again.weights, network.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["net.nir"]


def test_network_of_any_time_constants_comes_back_as_it_went(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    network = Network(
        (3, 5, 2), thresholds=[0.02, 0.03], max_spikes=[9, 9], tau_syn=[0.01, 0.02], tau_mem=[0.03, 0.02],
        duration=0.2, weights=[rng.normal(5, 5, (5, 3)), rng.normal(5, 5, (2, 5))], dtype="float64",
    )  # fmt: skip
    network.save(tmp_path / "net.npz")
    assert Network.load(tmp_path / "net.npz").time_constants == network.time_constants
    save_nir(network, tmp_path / "net.nir")
    again = to_network(load_nir(tmp_path / "net.nir"), duration=0.2, dtype="float64")
    assert again.time_constants == network.time_constants
    spikes = random_spikes(3)
    for a, b in zip(network.simulate(spikes), again.simulate(spikes), strict=True):
        assert a.spike_count.sum() > 5
        np.testing.assert_allclose(a.times, b.times, rtol=0, atol=1e-9)


def test_graph_of_every_kind_of_neuron_comes_back_as_it_went(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    several = {"drive": rng.uniform(0, 5, 4), "threshold": rng.uniform(0.5, 1, 4), "v_leak": 0.1}
    populations = [
        Population("cuba", 4, 0.01, 0.004, kick=300.0, **several),
        Population("lif", 4, rng.uniform(0.01, 0.02, 4), reset="subtract", kick=2.0, **several),
        Population("if", 3, np.inf, threshold=0.7, v_reset=-0.1),
        Population("li", 2, 0.02, threshold=np.inf),
    ]
    wires = [(INPUT, "cuba"), (INPUT, "lif"), ("cuba", "lif"), ("lif", "lif"), ("lif", "if"), ("if", "li")]
    sizes = {INPUT: 3} | {p.name: p.size for p in populations}
    connections = [
        Connection(a, b, rng.uniform(-0.3, 0.1 if a == b else 1, (sizes[b], sizes[a])), delay=0.002 * (b == "if"))
        for a, b in wires
    ]
    graph = Graph(3, populations, connections, pulse=1e-3)
    save_nir(graph, tmp_path / "net.nir")
    again = load_nir(tmp_path / "net.nir")
    assert {p.name: p.reset for p in again.populations if p.fires} == {"cuba": "zero", "lif": "subtract", "if": "zero"}
    assert again.outputs == ("li",)
    assert same_spikes(graph, again) > 100
    assert same_spikes(graph, again, "lava_float") > 100


def test_units_of_a_file_are_those_of_its_step() -> None:
    graph = built({"1": lif(2), "0": nir.Linear(np.eye(2))}, [("input", "0"), ("0", "1"), ("1", "output")])
    for delta_t, kick in ((1e-4, 0.04), (1e-3, 0.4)):
        np.testing.assert_allclose(from_nir(graph, delta_t=delta_t)["1"].kick, kick)
    cuba = nir.CubaLIF(*(np.array([x]) for x in (0.005, 0.01, 2.0, 0.0, 1.0, 0.0, 3.0)))
    nodes = {"0": nir.Affine(np.ones((1, 2)), np.array([0.5])), "1": cuba}
    [population] = from_nir(built(nodes, [("input", "0"), ("0", "1"), ("1", "output")])).populations
    # τ_s i' = −i + 3 S and τ_m v' = −v + 2 i: a spike of 0.1 ms adds 3 · 0.02 to i, and v' = 200 i
    np.testing.assert_allclose([population.kick, population.drive], [[0.06 * 200], [0.5 * 3 * 200]])


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (1, "same", 2, 1)])
def test_convolution_and_pooling_are_their_matrices(stride: int, padding: Any, dilation: int, groups: int) -> None:
    rng = np.random.default_rng(2)
    kernel, image = rng.normal(size=(4, 2 // groups, 3, 3)), rng.normal(size=(2, 8, 7))
    conv = nir.Conv2d((8, 7), kernel, stride, padding, dilation, groups, np.arange(4.0))
    spread = np.zeros((*kernel.shape[:2], 2 * dilation + 1, 2 * dilation + 1))
    spread[:, :, ::dilation, ::dilation] = kernel
    wide = dilation if padding == "same" else padding
    padded = np.pad(image, ((0, 0), (wide, wide), (wide, wide)))
    of = [padded[o // (4 // groups) * (2 // groups) :][: 2 // groups] for o in range(4)]
    planes = [sum(correlate2d(x, k, "valid") for x, k in zip(of[o], spread[o], strict=True)) for o in range(4)]
    after = np.array(planes)[:, ::stride, ::stride]
    ny, nx = after.shape[1] // 2, after.shape[2] // 2
    pooled = after[:, : 2 * ny, : 2 * nx].reshape(4, ny, 2, nx, 2).sum(axis=(2, 4))
    nodes = {
        "input": nir.Input({"input": np.array([2, 8, 7])}),
        "conv": conv,
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": None}, 0, -1),
        "if": nir.IF(np.ones(pooled.size), np.ones(pooled.size)),
        "output": nir.Output({"output": np.array([pooled.size])}),
    }
    order = list(nodes)
    graph = from_nir(nir.NIRGraph(nodes, list(pairwise(order)), type_check=False))
    [connection] = graph.connections
    np.testing.assert_allclose(connection.weights @ image.ravel(), pooled.ravel(), atol=1e-12)
    np.testing.assert_allclose(graph["if"].drive * 1e-4, np.repeat(np.arange(4.0), ny * nx) * 4)


def test_graph_inside_a_graph_is_laid_open() -> None:
    inner = built(
        {"lif": lif(2), "w": nir.Linear(np.eye(2))}, [("input", "lif"), ("lif", "output"), ("lif", "w"), ("w", "lif")]
    )
    outer = built({"0": nir.Linear(np.eye(2)), "layer": inner}, [("input", "0"), ("0", "layer"), ("layer", "output")])
    graph = from_nir(outer)
    assert {(c.source, c.target) for c in graph.connections} == {("layer.lif", "layer.lif"), (INPUT, "layer.lif")}
    assert graph.outputs == ("layer.lif",)


LINE = [("input", "w"), ("w", "n"), ("n", "output")]
LINEAR = {"w": nir.Linear(np.eye(2)), "u": nir.Linear(np.eye(2))}
REFUSED = {
    "threshold": ({"w": nir.Threshold(np.ones(2))}, LINE, r"node 'w' is of the kind Threshold.*known are"),
    "weights": ({"w": nir.Linear(np.ones((2, 3)))}, LINE, r"node 'w' has weights \(2, 3\)"),
    "size": ({"w": nir.Linear(np.ones((3, 2)))}, LINE, r"node 'n' has 2 neurons; 3 currents"),
    "read out": (LINEAR, [("input", "n"), ("n", "w"), ("w", "output")], r"node 'w' \(Linear\) is read out"),
    "below reset": (LINEAR | {"n": lif(2, v_reset=0.2)}, LINE, r"node 'n' \(LIF\) cannot be run"),
    "loop": (LINEAR, [*LINE, ("w", "u"), ("u", "w")], "loop without neurons"),
    "delays": (
        LINEAR | {"d": nir.Delay(np.array([1e-3, 2e-3]))},
        [("input", "w"), ("w", "d"), ("d", "n"), ("n", "output")],
        "node 'd' delays mixed currents differently",
    ),
    "integrator": ({"w": nir.LI(*(np.ones(2) for _ in range(3)))}, LINE, "population 'w' never fires"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_in_a_sentence_that_names_the_node(case: str) -> None:
    nodes, edges, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence):
        from_nir(built({"n": lif(2)} | nodes, edges))


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.nir").write_bytes(b"no graph")
    with pytest.raises(DataError, match=r"net\.nir is not a NIR graph"):
        load_nir(tmp_path / "net.nir")
    with pytest.raises(FileNotFoundError, match=r"other\.nir"):
        load_nir(tmp_path / "other.nir")


def test_engine_says_what_it_cannot_train() -> None:
    graph = graph_of_network(Network((2, 2), thresholds=[1], max_spikes=[1], tau_syn=0.1, duration=1))
    for reset, drive, what in (("zero", 0.0, "reset by subtraction"), ("subtract", 1.0, "neither bias")):
        changed = Population("layer1", 2, 0.2, 0.1, reset=reset, drive=drive)
        with pytest.raises(ValueError, match=f"'layer1'.*{what}"):
            to_network(Graph(2, [changed], graph.connections, pulse=1e-3), duration=1)


def test_public_name_is_this_module() -> None:
    assert interchange.load_nir is load_nir


@real
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("lif_norse", [1]),
        ("lif_rockpool", [1]),
        ("braille_noDelay_bias_zero", [38, 7]),
        ("braille_noDelay_noBias_subtract", [40, 7]),
        ("cnn_sinabs", [4096, 4096, 512, 256, 10]),
    ],
)
def test_real_file_is_read_runs_and_comes_back(name: str, sizes: list[int], tmp_path: Path) -> None:
    graph = load_nir(FILES / f"{name}.nir")
    assert [p.size for p in graph.populations] == sizes
    spikes = random_spikes(graph.n_inputs, samples=1)
    fired = simulate(graph, spikes, "norse", delta_t=1e-4, duration=0.002).spikes
    if name != "cnn_sinabs":
        save_nir(graph, tmp_path / "again.nir", delta_t=graph.pulse)
        again = simulate(load_nir(tmp_path / "again.nir"), spikes, "norse", delta_t=1e-4, duration=0.002).spikes
        assert all(again[n].times.tolist() == fired[n].times.tolist() for n in fired)


def test_export_names_what_adds_its_weight_to_the_current() -> None:
    network = Network((1, 1), thresholds=[1], max_spikes=[1], tau_syn=0.1, duration=1, weights=[np.array([[3.0]])])
    node = to_nir(network, delta_t=0.01).nodes["layer1"]
    # snnTorch's Synaptic: syn = α syn + w, mem = β mem + syn
    np.testing.assert_allclose([node.w_in * 0.01 / node.tau_syn, node.r * 0.01 / node.tau_mem], 1)


def test_commands_carry_a_network_out_and_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = [np.array([[1.0, -2.0]])]
    network = Network((2, 1), thresholds=[0.2], max_spikes=[9], tau_syn=0.13, duration=0.2, weights=weights)
    network.save(tmp_path / "a.npz")
    assert main(["export", str(tmp_path / "a.npz"), "--out", str(tmp_path / "b.nir"), "--step", "0.002"]) == 0
    assert main(["import", str(tmp_path / "b.nir"), "--network", str(tmp_path / "c.npz")]) == 0
    assert "layer1: 1 CuBa-LIF, τ_mem 260 ms, τ_syn 130 ms, threshold 0.2, reset subtract" in capsys.readouterr().out
    np.testing.assert_allclose(Network.load(tmp_path / "c.npz").weights, weights, rtol=1e-6)
    assert main(["import", str(tmp_path / "b.nir"), "--reset", "zero", "--network", str(tmp_path / "d.npz")]) == 2
    assert "reset by subtraction" in capsys.readouterr().err
    assert not (tmp_path / "d.npz").exists()
