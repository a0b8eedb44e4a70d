"""One training step in plain NumPy: the same algorithm as the engine, a sample at a time, vectorized over neurons.

It is what the benchmark compares the engine with, and it must give the same numbers: the benchmark
checks that before it times anything. Rule ``drop``.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-6


def forward(neuron, times, ticks, weights, *, threshold, tau, delta_t, duration, max_spikes):
    """Simulate one sample; weights are (pre, post). Return crossings (neuron, time, tick, slope) in order of group."""
    c = threshold / tau
    keys = ticks if delta_t else times
    n_post = weights.shape[1]
    a, b, below = np.zeros(n_post), np.zeros(n_post), np.ones(n_post, bool)
    count, own_tick = np.zeros(n_post, int), np.full(n_post, -1)
    groups, first = np.unique(keys, return_index=True)
    at = groups * delta_t if delta_t else groups
    first = np.append(first, len(keys))[: np.sum(at <= duration * (1 + TOLERANCE)) + 1]
    found = []
    for g in range(len(first) - 1):
        if g:
            d = np.exp(-(at[g] - at[g - 1]) / tau)
            a, b = a * d * d, b * d
        w = weights[neuron[first[g] : first[g + 1]]].sum(axis=0)
        a, b = a + w, b + w
        stop = at[g + 1] if g + 2 < len(first) else duration
        end = np.exp(-(stop - at[g]) / tau)
        latest = np.ones(n_post)
        alive = below & (count < max_spikes)
        while True:
            root = b * b - 4 * a * c
            with np.errstate(invalid="ignore", divide="ignore"):
                x = np.sqrt(root)
                s = (b + x) / (2 * a)
                alive &= (root > 0) & (a > 0) & (b > 0) & (s >= end) & (s < latest)
            j = np.flatnonzero(alive)
            if not len(j):
                break
            since = -tau * np.log(s[j])
            tick = np.zeros(len(j), int)
            if delta_t:
                phase = since / delta_t
                tick = groups[g] + np.floor(phase + TOLERANCE).astype(int) + 1
                collides = (own_tick[j] >= 0) & (phase - TOLERANCE <= own_tick[j] - groups[g])
                alive[j[collides]] = False
                j, since, tick = j[~collides], since[~collides], tick[~collides]
            found.append((j, at[g] + since, tick, x[j] * s[j]))
            own_tick[j] = tick
            count[j] += 1
            b[j] -= c / s[j]
            latest[j] = s[j]
            alive &= count < max_spikes
        below = (a * end - b) * end + c > 0
    if not found:
        return np.zeros(0, int), np.zeros(0), np.zeros(0, int), np.zeros(0)
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def backward(inputs, crossings, errors, weights, gradient, *, threshold, tau, delta_t):
    """Add one sample's weight gradient (pre, post); return the error of each input event (eq. 11-16)."""
    neuron, times, ticks = inputs
    post, t, _, slope = crossings
    sent = ticks * delta_t if delta_t else times
    coefficient = np.zeros(len(t))
    order = np.lexsort((t, post))[::-1]
    last, chain, later = -1, 0.0, 0.0
    for k in order:  # intra-neuron errors, from each neuron's last crossing to its first
        if post[k] != last:
            last, chain = post[k], 0.0
        chain *= np.exp((t[k] - later) / tau) if chain else 0.0
        scaled = (errors[k] + chain) / slope[k]
        chain, later = chain + scaled * threshold / tau, t[k]
        coefficient[k] = scaled * tau
    # (event, crossing) pairs, which the engine never forms: small enough for one sample
    with np.errstate(over="ignore"):
        ahead = np.where(times[:, None] < t, np.exp((sent[:, None] - t) / tau), 0.0)
    step = coefficient * (ahead**2 - ahead)
    back = coefficient * (2 * ahead**2 - ahead) / tau
    np.add.at(gradient, (neuron[:, None], post[None, :]), step)
    return (weights[neuron][:, post] * back).sum(axis=1)


def train_step(batch, labels, layers, state, *, delta_t, tau, duration, learning_rate):
    """Train on one batch; `layers` are dicts of weights, threshold, max_spikes; return spikes per layer."""
    gradients = [np.zeros_like(layer["weights"]) for layer in layers]
    spikes = np.zeros(len(layers), int)
    for (neuron, times, ticks), label in zip(batch, labels, strict=True):
        inputs, crossed = [(neuron, times, ticks)], []
        for layer in layers:
            common = dict(threshold=layer["threshold"], tau=tau, delta_t=delta_t)
            found = forward(*inputs[-1], layer["weights"], duration=duration, max_spikes=layer["max_spikes"], **common)
            order = np.argsort(found[2] if delta_t else found[1], kind="stable")
            found = tuple(part[order] for part in found)
            crossed.append(found)
            inputs.append(found[:3])
        spikes += [len(found[0]) for found in crossed]
        n_out = layers[-1]["weights"].shape[1]
        counts = np.bincount(crossed[-1][0], minlength=n_out)
        targets = np.where(np.arange(n_out) == label, 15.0, 3.0)
        errors = (targets - counts)[crossed[-1][0]]
        for i in reversed(range(len(layers))):
            layer = layers[i]
            errors = backward(
                inputs[i], crossed[i], errors, layer["weights"], gradients[i],
                threshold=layer["threshold"], tau=tau, delta_t=delta_t,
            )  # fmt: skip
    state["t"] += 1
    for i, (layer, g) in enumerate(zip(layers, gradients, strict=True)):
        g /= len(labels)
        m = state[("m", i)] = 0.9 * state.get(("m", i), 0.0) + 0.1 * g
        v = state[("v", i)] = 0.999 * state.get(("v", i), 0.0) + 0.001 * g * g
        correction = np.sqrt(1 - 0.999 ** state["t"])
        rate = learning_rate / (1 - 0.9 ** state["t"])
        layer["weights"] -= rate * m / (np.sqrt(v) / correction + 1e-8)
    return spikes, gradients
