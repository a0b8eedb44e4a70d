"""Networks that others trained, and ours for others: import and export in NIR, the format of ten platforms.

NIR (Pedersen et al., Nature Communications 15, 8122, 2024) writes equations in continuous time and leaves open how
much one spike is. Platforms take it as a current of 1 that lasts one of their steps, so a file means something only
with the step it was written for: `delta_t`. With it an input spike of weight `w` adds to a neuron

=============  =================================  =========================
node           adds                               to
=============  =================================  =========================
CubaLIF        ``r w_in w Δt / (τ_mem τ_syn)``    the current
LIF, LI        ``r w Δt / τ``                     the potential, in a step
IF             ``r w``                            the potential, in a step
=============  =================================  =========================

(IF as Sinabs writes it: its step is 1.) A bias is a constant current. NIR has no word for reset by subtraction, nor for
the most spikes of a neuron; what we write says both in the node's metadata.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from bats_lab.engine import TimeConstants
from bats_lab.errors import DataError
from bats_lab.network.feedforward import Network
from bats_lab.network.graphs import INPUT, Connection, Graph, Population, graph_of_network

__all__ = ["describe", "from_nir", "load_nir", "save_nir", "to_network", "to_nir"]


def _nir() -> Any:
    try:
        import nir
    except ImportError as error:
        raise DataError("NIR files need the package nir: pip install 'bats-lab[nir]'.") from error
    return nir


# Reading


class _Path(NamedTuple):
    """What reaches a node from a source of spikes: a matrix (None: as it is), and the delay of each source neuron."""

    source: str
    matrix: Any
    delay: np.ndarray


def load_nir(path: str | os.PathLike[str], *, delta_t: float | None = None, reset: str | None = None) -> Graph:
    """Read a network from a NIR file.

    Parameters
    ----------
    path : str or path
        The file.
    delta_t : float or None
        Step that the file was written for, in seconds; None: what the file says, else 0.1 ms.
    reset : str or None
        ``zero`` or ``subtract`` for all neurons; None: what a node's metadata says, else ``zero``.

    Returns
    -------
    Graph

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If it is no NIR file, or the package `nir` is missing.
    ValueError
        If it holds something that is not known here; the sentence names the node.
    """
    nir = _nir()
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {os.fspath(path)}.")
    try:
        graph = nir.read(path, type_check=False)
    except Exception as error:  # h5py and nir raise all kinds of errors
        raise DataError(f"{os.fspath(path)} is not a NIR graph ({str(error) or type(error).__name__}).") from error
    return from_nir(graph, delta_t=delta_t, reset=reset)


def from_nir(graph: Any, *, delta_t: float | None = None, reset: str | None = None) -> Graph:
    """Return a ``nir.NIRGraph`` as a graph; parameters and errors are those of :func:`load_nir`."""
    nodes, edges = _spliced(graph)
    metadata = graph.metadata if isinstance(graph.metadata, dict) else {}
    delta_t = float(metadata.get("delta_t", 1e-4)) if delta_t is None else delta_t
    kinds = {name: type(node).__name__ for name, node in nodes.items()}
    inputs, outputs = ([n for n, kind in kinds.items() if kind == wanted] for wanted in ("Input", "Output"))
    if len(inputs) != 1:
        raise ValueError(f"the graph has {len(inputs)} input nodes ({', '.join(inputs)}); it must have one.")
    shapes = {inputs[0]: tuple(int(n) for n in nodes[inputs[0]].input_type["input"])}
    into: dict[str, list[str]] = {name: [a for a, b in edges if b == name] for name in nodes}
    populations: dict[str, Population] = {}
    connections: list[Connection] = []
    for name in _in_order(inputs[0], edges):
        kind, node = kinds[name], nodes[name]
        if kind in _NEURONS:
            shapes[name] = np.shape(_NEURONS[kind](node)["threshold"])

    def incoming(name: str, below: tuple[str, ...] = ()) -> tuple[list[_Path], np.ndarray | float]:
        """Return what reaches a node, and the constant current that does."""
        if name in below:
            raise ValueError(f"node {name!r} is part of a loop without neurons; every loop must hold neurons.")
        paths: list[_Path] = []
        bias: np.ndarray | float = 0.0
        for before in into[name]:
            if before == inputs[0] or kinds[before] in _NEURONS:
                size = int(np.prod(shapes[before]))
                paths.append(_Path(INPUT if before == inputs[0] else before, None, np.zeros(size)))
                continue
            reached, constant = incoming(before, (*below, name))
            shape = _shape_before(before, into, shapes)
            step = _linear(before, nodes[before], kinds[before], shape)
            shapes[before] = step.shape
            paths += [_Path(p.source, *step.after(p)) for p in reached]
            constant = constant if step.matrix is None or np.ndim(constant) == 0 else step.matrix @ constant
            bias = bias + constant + step.bias
        return paths, bias

    for name in _in_order(inputs[0], edges):
        if kinds[name] in _NEURONS:
            size = int(np.prod(shapes[name]))
            paths, bias = incoming(name)
            populations[name] = _population(name, nodes[name], kinds[name], bias, delta_t, reset)
            for p in paths:
                matrix = sparse.identity(size, format="csr") if p.matrix is None else p.matrix
                if matrix.shape[0] != size:
                    raise ValueError(f"node {name!r} has {size} neurons; {matrix.shape[0]} currents reach it.")
                connections.append(Connection(p.source, name, matrix, p.delay))
    read = [before for name in outputs for before in into[name]]
    while any(kinds[name] == "_Passing" for name in read):
        read = [n for name in read for n in (into[name] if kinds[name] == "_Passing" else [name])]
    for name in read:
        if name not in populations:
            raise ValueError(f"node {name!r} ({kinds[name]}) is read out; an output must be read from neurons.")
    n_inputs = int(np.prod(shapes[inputs[0]]))
    return Graph(n_inputs, list(populations.values()), connections, pulse=delta_t, outputs=tuple(read))


def _spliced(graph: Any, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return nodes and edges with the graphs inside it laid open; their inputs and outputs hand on what comes."""
    nodes: dict[str, Any] = {}
    edges = [(prefix + a, prefix + b) for a, b in graph.edges]
    for name, node in graph.nodes.items():
        if type(node).__name__ == "NIRGraph":
            inner, wires = _spliced(node, f"{prefix}{name}.")
            ends = {kind: [n for n in inner if type(inner[n]).__name__ == kind] for kind in ("Input", "Output")}
            if len(ends["Input"]) != 1 or len(ends["Output"]) != 1:
                raise ValueError(f"node {prefix + name!r} is a graph that must have one input and one output.")
            [first], [last] = ends["Input"], ends["Output"]
            whole = prefix + name
            edges = [(last if a == whole else a, first if b == whole else b) for a, b in edges] + wires
            nodes |= inner | {first: _Passing(), last: _Passing()}
        else:
            nodes[prefix + name] = node
    return nodes, edges


class _Passing:
    """Stands for the input or output of a graph inside a graph."""


def _in_order(start: str, edges: list[tuple[str, str]]) -> list[str]:
    """Return the nodes that the input reaches, each after those that lead to it but for the ends of loops."""
    done: list[str] = []
    seen = {start}
    stack = [(start, iter([b for a, b in edges if a == start]))]
    while stack:
        name, following = stack[-1]
        after = next((b for b in following if b not in seen), None)
        if after is None:
            done.append(name)
            stack.pop()
        else:
            seen.add(after)
            stack.append((after, iter([b for a, b in edges if a == after])))
    return done[::-1]


def _shape_before(name: str, into: dict[str, list[str]], shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    found = {tuple(shapes[before]) for before in into[name] if before in shapes}
    if len(found) != 1:
        raise ValueError(f"node {name!r} is reached by currents of the shapes {sorted(found)}; it must be one shape.")
    return found.pop()


class _Step(NamedTuple):
    """A node without neurons: a matrix (None: as it is), a constant, a delay, and the shape of what leaves it."""

    name: str
    shape: tuple[int, ...]
    matrix: Any = None
    bias: Any = 0.0
    delay: Any = 0.0

    def after(self, path: _Path) -> tuple[Any, np.ndarray]:
        """Return matrix and delay of a path that goes on through this node."""
        late = np.asarray(self.delay, np.float64).ravel()
        if late.any() and path.matrix is not None:
            if (late != late[0]).any():
                raise ValueError(f"node {self.name!r} delays mixed currents differently; delays must follow neurons.")
            late = late[:1]
        if self.matrix is None:
            return path.matrix, path.delay + late
        if path.matrix is None:
            return self.matrix, path.delay + late
        return self.matrix @ path.matrix, path.delay + late


def _linear(name: str, node: Any, kind: str, shape: tuple[int, ...]) -> _Step:
    """Return a node without neurons as a step, given the shape of what reaches it."""
    size = int(np.prod(shape))
    if kind in ("Affine", "Linear"):
        matrix = np.asarray(node.weight, np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != size:
            raise ValueError(f"node {name!r} has weights {matrix.shape}; they must be (post, {size}).")
        return _Step(name, (matrix.shape[0],), matrix, np.asarray(getattr(node, "bias", 0.0), np.float64))
    if kind == "Scale":
        scale = np.broadcast_to(np.asarray(node.scale, np.float64), shape).ravel()
        return _Step(name, shape, sparse.diags(scale, format="csr"))
    if kind == "Flatten":
        first, last = int(node.start_dim) % len(shape), int(node.end_dim) % len(shape)
        return _Step(name, (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :]))
    if kind == "Delay":
        return _Step(name, shape, delay=np.broadcast_to(np.asarray(node.delay, np.float64), shape))
    if kind in ("_Passing", "Output"):
        return _Step(name, shape)
    if kind in ("Conv2d", "SumPool2d", "AvgPool2d"):
        if len(shape) != 3:
            raise ValueError(f"node {name!r} ({kind}) is reached by the shape {shape}; it must be (channel, y, x).")
        if kind == "Conv2d":
            kernel = np.asarray(node.weight, np.float64)
            groups, dilation = int(node.groups), node.dilation
            bias = np.zeros(kernel.shape[0]) if node.bias is None else np.asarray(node.bias, np.float64)
        else:
            sides = np.broadcast_to(node.kernel_size, 2)
            kernel = np.ones((shape[0], 1, *map(int, sides))) / (np.prod(sides) if kind == "AvgPool2d" else 1)
            bias, groups, dilation = np.zeros(shape[0]), shape[0], 1
        if kernel.shape[1] * groups != shape[0]:
            raise ValueError(f"node {name!r} takes {kernel.shape[1] * groups} channels; {shape[0]} reach it.")
        matrix, after = _convolution(kernel, shape, node.stride, node.padding, dilation, groups)
        return _Step(name, after, matrix, np.repeat(bias, after[1] * after[2]))
    known = ", ".join(sorted({*_NEURONS, *_LINEAR}))
    raise ValueError(f"node {name!r} is of the kind {kind}, which is not known here; known are {known}.")


_LINEAR = ("Affine", "AvgPool2d", "Conv2d", "Delay", "Flatten", "Linear", "Scale", "SumPool2d")


def _convolution(
    kernel: np.ndarray, shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int
) -> tuple[Any, tuple[int, int, int]]:
    """Return a convolution (out, in per group, y, x) of images as a matrix, and the shape of what leaves it."""
    out, per_group, *sides = kernel.shape
    stride, dilation = np.broadcast_to(stride, 2).astype(int), np.broadcast_to(dilation, 2).astype(int)
    whole = dilation * (np.array(sides) - 1)
    if isinstance(padding, str):
        total = whole if padding == "same" else np.zeros(2, int)
    else:
        total = 2 * np.broadcast_to(padding, 2).astype(int)
    ny, nx = (np.array(shape[1:]) + total - whole - 1) // stride + 1
    channel = np.arange(out)[:, None] // (out // groups) * per_group + np.arange(per_group)
    rows, columns, values = [], [], []
    for ky, kx in np.ndindex(*sides):
        y = np.arange(ny) * stride[0] + ky * dilation[0] - total[0] // 2
        x = np.arange(nx) * stride[1] + kx * dilation[1] - total[1] // 2
        inside = ((y >= 0) & (y < shape[1]))[:, None] & ((x >= 0) & (x < shape[2]))
        to, of = np.arange(ny * nx)[inside.ravel()], (y[:, None] * shape[2] + x)[inside]
        row = np.arange(out)[:, None, None] * ny * nx + to
        column = channel[:, :, None] * shape[1] * shape[2] + of
        row, column, value = np.broadcast_arrays(row, column, kernel[:, :, ky, kx][:, :, None])
        rows.append(row.ravel())
        columns.append(column.ravel())
        values.append(value.ravel())
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    matrix = sparse.coo_matrix(entries, shape=(out * ny * nx, int(np.prod(shape)))).tocsr()
    matrix.eliminate_zeros()
    return matrix, (out, int(ny), int(nx))


#: Constants of each kind of neuron: τ_mem, τ_syn, resistance, weight of the input, threshold, and where it rests.
_NEURONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "LIF": lambda n: {"tau_mem": n.tau, "threshold": n.v_threshold, "v_leak": n.v_leak, "v_reset": n.v_reset},
    "CubaLIF": lambda n: {
        "tau_mem": n.tau_mem,
        "tau_syn": n.tau_syn,
        "threshold": n.v_threshold,
        "v_leak": n.v_leak,
        "v_reset": n.v_reset,
    },
    "IF": lambda n: {"tau_mem": np.inf, "threshold": n.v_threshold, "v_reset": n.v_reset},
    "LI": lambda n: {"tau_mem": n.tau, "threshold": np.full_like(n.tau, np.inf), "v_leak": n.v_leak},
    "CubaLI": lambda n: {
        "tau_mem": n.tau_mem,
        "tau_syn": n.tau_syn,
        "threshold": np.full_like(n.tau_mem, np.inf),
        "v_leak": n.v_leak,
    },
    "I": lambda n: {"tau_mem": np.inf, "threshold": np.full_like(n.r, np.inf)},
}


def _population(name: str, node: Any, kind: str, bias: Any, delta_t: float, reset: str | None) -> Population:
    constants: dict[str, Any] = {
        key: np.asarray(value, np.float64).ravel() for key, value in _NEURONS[kind](node).items()
    }
    size = constants["threshold"].size
    resistance = np.asarray(node.r, np.float64).ravel()
    rate = resistance / (delta_t if kind in ("IF", "I") else constants["tau_mem"])
    kick = rate * delta_t
    drive = rate * np.asarray(bias)
    if "tau_syn" in constants:
        weight = np.asarray(node.w_in, np.float64).ravel()
        kick, drive = kick * weight / constants["tau_syn"], drive * weight
    metadata = node.metadata or {}
    said = metadata.get("reset", "zero")
    constants["reset"] = reset or (said.decode() if isinstance(said, bytes) else str(said))
    constants["max_spikes"] = int(metadata.get("max_spikes", 0))
    try:
        return Population(name, size, **constants, kick=kick, drive=drive)
    except ValueError as error:
        raise ValueError(f"node {name!r} ({kind}) cannot be run: {error}") from error


# Writing


def to_nir(network: Network | Graph, *, delta_t: float = 1e-3) -> Any:
    """Return a network as a ``nir.NIRGraph``.

    Parameters
    ----------
    network : Network or Graph
        The network; convolutions leave as their matrices.
    delta_t : float
        Step in seconds that a spike's current of 1 lasts on the platform that reads it. `r` and `w_in` are chosen
        such that an input spike adds its weight to the current, as snnTorch has it.

    Returns
    -------
    nir.NIRGraph
    """
    nir = _nir()
    if not 0 < delta_t < np.inf:
        raise ValueError(f"delta_t is {delta_t}; it must be a time above 0.")
    graph = graph_of_network(network) if isinstance(network, Network) else network
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array([graph.n_inputs])})}
    edges: list[tuple[str, str]] = []
    for p in graph.populations:
        nodes[p.name] = _node(nir, p, delta_t)
        # What one unit of weight adds to this node, undone in the weights; and the bias that gives the drive.
        unit = 1 / delta_t if p.has_synapse else 1.0
        bias = p.drive * (delta_t**2 / p.tau_syn if p.has_synapse else delta_t)
        for k, c in enumerate(graph.incoming(p.name)):
            dense = c.weights if isinstance(c.weights, np.ndarray) else c.weights.toarray()
            weights = dense * (p.kick / unit)[:, None]
            name = f"{c.source}_to_{p.name}"
            nodes[name] = nir.Affine(weights, bias) if k == 0 and bias.any() else nir.Linear(weights)
            edges.append((name, p.name))
            if c.delay.any():
                nodes[f"delay_of_{name}"] = nir.Delay(c.delay.copy())
                edges += [(c.source, f"delay_of_{name}"), (f"delay_of_{name}", name)]
            else:
                edges.append((c.source, name))
    for name in graph.outputs:
        end = "output" if len(graph.outputs) == 1 else f"output_{name}"
        nodes[end] = nir.Output({"output": np.array([graph[name].size])})
        edges.append((name, end))
    return nir.NIRGraph(nodes, edges, metadata={"delta_t": delta_t})


def _node(nir: Any, p: Population, delta_t: float) -> Any:
    said = {"metadata": {"reset": p.reset, "max_spikes": p.max_spikes}}
    if np.isinf(p.tau_mem).all() and not p.has_synapse:
        one = np.ones(p.size)
        return nir.IF(one, p.threshold, p.v_reset, **said) if p.fires else nir.I(one)
    if not np.isfinite(p.tau_mem).all():
        raise ValueError(f"population {p.name!r} has a synapse and no leak, which NIR has no node for.")
    resistance = p.tau_mem / delta_t
    if p.has_synapse:
        constants = (p.tau_syn, p.tau_mem, resistance, p.v_leak)
        weight = p.tau_syn / delta_t
        if p.fires:
            return nir.CubaLIF(*constants, p.threshold, p.v_reset, weight, **said)
        return nir.CubaLI(*constants, weight)
    if p.fires:
        return nir.LIF(p.tau_mem, resistance, p.v_leak, p.threshold, p.v_reset, **said)
    return nir.LI(p.tau_mem, resistance, p.v_leak)


def save_nir(network: Network | Graph, path: str | os.PathLike[str], *, delta_t: float = 1e-3) -> None:
    """Write a network to a NIR file, whole or not at all; parameters are those of :func:`to_nir`.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    graph, path = to_nir(network, delta_t=delta_t), Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        _nir().write(part, graph)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def to_network(graph: Graph, *, duration: float, **options: Any) -> Network:
    """Return a graph as a network of the engine, which trains and has the exact gradient.

    Parameters
    ----------
    graph : Graph
        A chain of CuBa-LIF layers, each of one kind of neuron, reset by subtraction and nothing else.
    duration : float
        Length of the window in seconds.
    **options
        Further options of :class:`~bats_lab.network.feedforward.Network`.

    Raises
    ------
    ValueError
        If the engine has no such neurons or connections; the sentence says which.
    """
    names = [INPUT, *(p.name for p in graph.populations)]
    weights = []
    for before, p in zip(names, graph.populations, strict=False):
        incoming = graph.incoming(p.name)
        limits = {
            "one connection, from the layer before, without delay": len(incoming) == 1
            and incoming[0].source == before
            and not incoming[0].delay.any(),
            "one threshold for all neurons": np.ptp(p.threshold) == 0,
            "a synapse and a leak, with the same time constants for all neurons": p.has_synapse
            and np.isfinite(p.tau_mem).all()
            and np.allclose([p.tau_syn / p.tau_syn[0], p.tau_mem / p.tau_mem[0]], 1, rtol=1e-6),
            "reset by subtraction": p.reset == "subtract",
            "neither bias nor leak potential": not (p.drive.any() or p.v_leak.any()),
        }
        missing = next((what for what, kept in limits.items() if not kept), None)
        if missing:
            raise ValueError(f"population {p.name!r} is not for the engine, which needs {missing}.")
        [c] = incoming
        weights.append((c.weights if isinstance(c.weights, np.ndarray) else c.weights.toarray()) * p.kick[:, None])
    constants = [TimeConstants(float(p.tau_mem[0]), float(p.tau_syn[0])) for p in graph.populations]
    # A file's constants may be rounded to float32: the closed form is meant where they nearly have its ratio.
    tau_mem = [2 * syn if np.isclose(mem, 2 * syn, rtol=1e-6) else mem for mem, syn in constants]
    return Network(
        [graph.n_inputs, *(p.size for p in graph.populations)],
        thresholds=[float(p.threshold[0]) for p in graph.populations],
        max_spikes=[p.max_spikes or 30 for p in graph.populations],
        **_one_or_each(tau_mem, [syn for _, syn in constants]),
        duration=duration,
        weights=weights,
        **options,
    )


def _one_or_each(tau_mem: list[float], tau_syn: list[float]) -> dict[str, Any]:
    """Return time constants as a network takes them: one for all layers where they are the same."""
    same = np.allclose(tau_syn, tau_syn[0], rtol=1e-6)
    if same and np.allclose(tau_mem, 2 * tau_syn[0], rtol=1e-6):
        return {"tau_syn": tau_syn[0]}
    return {"tau_mem": tau_mem, "tau_syn": tau_syn}


def describe(graph: Graph) -> str:
    """Return a graph as a small table: its populations, their constants, and what reaches them."""
    lines = [f"{graph.n_inputs} inputs, a spike's current lasts {graph.pulse * 1e3:g} ms"]

    def spread(values: np.ndarray, scale: float = 1.0) -> str:
        low, high = values.min() * scale, values.max() * scale
        return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"

    for p in graph.populations:
        kind = ("CuBa-" if p.has_synapse else "") + ("L" if np.isfinite(p.tau_mem).all() else "") + "I" + "F" * p.fires
        syn = f", τ_syn {spread(p.tau_syn, 1e3)} ms" if p.has_synapse else ""
        fires = f", threshold {spread(p.threshold)}, reset {p.reset}" if p.fires else ""
        wires = "; ".join(
            f"{c.source}{' (recurrent)' if graph.is_recurrent(c) else ''}, {_count(c.weights)} weights"
            + (f", delays {spread(c.delay, 1e3)} ms" if c.delay.any() else "")
            for c in graph.incoming(p.name)
        )
        bias = ", with bias" if p.drive.any() else ""
        lines.append(f"{p.name}: {p.size} {kind}, τ_mem {spread(p.tau_mem, 1e3)} ms{syn}{fires}{bias}")
        lines.append(f"  from {wires or 'nothing'}")
    return "\n".join([*lines, f"read out: {', '.join(graph.outputs)}"])


def _count(weights: Any) -> int:
    return int(np.count_nonzero(weights) if isinstance(weights, np.ndarray) else weights.nnz)
