"""One training step as a direct numba program: the thesis' equations in loops over neurons, which vectorize.

The benchmark compares the engine with it, because it tells machines apart: what it does in a second says how fast the
machine is at this kind of work. It is checked to give the engine's gradient before it is timed. Rule ``drop``.
Samples run in parallel, each on arrays of its own; gradients are added up a thread at a time.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

TOLERANCE = 1e-6


@njit(fastmath=True, error_model="numpy")
def add_events(row_sum, a, b, crosses, e, e_end, c):
    """Add the weights of events at one time; mark the neurons that cross before the next (eq. 8, 9)."""
    two, four, zero = a.dtype.type(2), a.dtype.type(4), a.dtype.type(0)
    for j in range(len(a)):
        a_j, b_j = a[j] + row_sum[j] * e * e, b[j] + row_sum[j] * e
        a[j], b[j] = a_j, b_j
        root = b_j * b_j - four * a_j * c
        y = two * a_j / (b_j + np.sqrt(max(root, zero)))
        crosses[j] = (root > zero) & (y >= e) & (y <= e_end)


@njit(fastmath=True, error_model="numpy")
def simulate(
    neuron, times, ticks, n_events, weights, c, tau, delta_t, duration, a, b, latest, count, when, tick, slope, sum_a
):
    """Simulate one layer for one sample (eq. 5-9): fill each neuron's crossings (post, spike)."""
    n_post, most = when.shape
    real = a.dtype.type
    two, four = real(2), real(4)
    row_sum, crosses = np.empty_like(a), np.empty(n_post, a.dtype)
    a[:], b[:], latest[:], count[:] = 0, 0, -1, 0
    event = 0
    while event < n_events:
        key = ticks[event]
        now = key * delta_t if delta_t > 0 else times[event]
        if now > duration * (1 + TOLERANCE):
            break
        row_sum[:] = 0
        while event < n_events and (ticks[event] == key if delta_t > 0 else times[event] == now):
            row = weights[neuron[event]]
            for j in range(n_post):
                row_sum[j] += row[j]
            event += 1
        end = duration
        if event < n_events:
            end = min(end, ticks[event] * delta_t if delta_t > 0 else times[event])
        e, e_end = real(np.exp(now / tau)), real(np.exp(end / tau))
        add_events(row_sum, a, b, crosses, e, e_end, c)
        for j in range(n_post):
            if crosses[j] == 0:
                continue
            while count[j] < most:
                root = b[j] * b[j] - four * a[j] * c
                if root <= 0:
                    break
                x = np.sqrt(root)
                y = two * a[j] / (b[j] + x)
                if not e <= y <= e_end:
                    break
                t = tau * np.log(y)
                if not t > latest[j]:
                    break
                k = count[j]
                when[j, k], slope[j, k], sum_a[j, k] = t, x, a[j]
                tick[j, k] = int(t / delta_t + TOLERANCE) + 1 if delta_t > 0 else 0
                latest[j] = (tick[j, k] + TOLERANCE) * delta_t if delta_t > 0 else t
                count[j] = k + 1
                b[j] -= c * y


@njit(fastmath=True, error_model="numpy")
def list_spikes(count, when, tick, neuron, times, ticks, place):
    """List a layer's spikes in order of time, as events for the next; return their number."""
    n = 0
    for j in range(len(count)):
        for k in range(count[j]):
            neuron[n], times[n], ticks[n], place[n] = j, when[j, k], tick[j, k], j * when.shape[1] + k
            n += 1
    order = np.argsort(times[:n])
    neuron[:n], times[:n], ticks[:n], place[:n] = (
        neuron[:n][order],
        times[:n][order],
        ticks[:n][order],
        place[:n][order],
    )
    return n


@njit(fastmath=True, error_model="numpy")
def go_back(
    neuron, times, ticks, n_events, weights, gradient, c, tau, delta_t, count, when, slope, sum_a, place, errors, below
):
    """Send one sample's errors (post, spike) back through one layer (eq. 11-16); set those of its events.

    `place` lists its crossings in order of time.
    """
    n_post, most = when.shape
    real = gradient.dtype.type
    one, two = real(1), real(2)
    f, h = np.zeros(n_post, gradient.dtype), np.zeros(n_post, gradient.dtype)
    for j in range(n_post):
        chain = real(0)
        for k in range(count[j] - 1, -1, -1):
            errors[j, k] += chain * np.exp(when[j, k] / tau)
            chain += errors[j, k] * c / slope[j, k]
    left = np.sum(count)
    for event in range(n_events - 1, -1, -1):
        while left > 0:
            j, k = place[left - 1] // most, place[left - 1] % most
            if when[j, k] <= times[event]:
                break
            f[j] += errors[j, k] * tau / sum_a[j, k] * (one + c * np.exp(when[j, k] / tau) / slope[j, k])
            h[j] += errors[j, k] * tau / slope[j, k]
            left -= 1
        e = real(np.exp((ticks[event] * delta_t if delta_t > 0 else times[event]) / tau))
        row = gradient[neuron[event]]
        if len(below):
            w, total = weights[neuron[event]], real(0)
            for j in range(n_post):
                total += w[j] * (two * e * e * f[j] - e * h[j])
            below[event] = total / tau
        for j in range(n_post):
            row[j] += e * e * f[j] - e * h[j]


@njit(parallel=True, fastmath=True, error_model="numpy")
def forward(samples, start, size, neuron, times, ticks, weights, c, tau, delta_t, duration, state, spikes, n_spikes):
    """Run a batch through one layer."""
    a, b, latest, count, when, tick, slope, sum_a = state
    for i in prange(len(samples)):
        begin = start[samples[i]]
        stop = begin + size[samples[i]]
        simulate(
            neuron[begin:stop], times[begin:stop], ticks[begin:stop], stop - begin, weights, c, tau, delta_t, duration,
            a[i], b[i], latest[i], count[i], when[i], tick[i], slope[i], sum_a[i],
        )  # fmt: skip
        n_spikes[i] = list_spikes(count[i], when[i], tick[i], spikes[0][i], spikes[1][i], spikes[2][i], spikes[3][i])


@njit(parallel=True, fastmath=True, error_model="numpy")
def backward(
    samples, start, size, neuron, times, ticks, weights, gradients, c, tau, delta_t, state, place, errors, below
):
    """Send a batch's errors back through one layer; each thread adds to a gradient of its own."""
    _, _, _, count, when, _, slope, sum_a = state
    for thread in prange(len(gradients)):
        for i in range(thread * len(samples) // len(gradients), (thread + 1) * len(samples) // len(gradients)):
            begin = start[samples[i]]
            stop = begin + size[samples[i]]
            go_back(
                neuron[begin:stop], times[begin:stop], ticks[begin:stop], stop - begin, weights, gradients[thread],
                c, tau, delta_t, count[i], when[i], slope[i], sum_a[i], place[i], errors[i], below[i],
            )  # fmt: skip


@njit(parallel=True, fastmath=True, error_model="numpy")
def adam(weights, gradients, m, v, rate, correction, n_samples):
    """Adam: add up the threads' gradients and clear them."""
    real = weights.dtype.type
    beta_1, rest_1, beta_2, rest_2 = real(0.9), real(0.1), real(0.999), real(0.001)
    for i in prange(weights.shape[0]):
        for j in range(weights.shape[1]):
            g = real(0)
            for thread in range(len(gradients)):
                g += gradients[thread, i, j]
                gradients[thread, i, j] = 0
            g /= real(n_samples)
            m[i, j] = beta_1 * m[i, j] + rest_1 * g
            v[i, j] = beta_2 * v[i, j] + rest_2 * g * g
            weights[i, j] -= rate * m[i, j] / (np.sqrt(v[i, j]) / correction + real(1e-8))


class PlainNumba:
    """A network that is trained by the functions above.

    `layers` are dicts of weights (pre, post), threshold and max_spikes, as for the step in NumPy; all floats are of
    one type.
    """

    def __init__(self, layers, batch_size, *, delta_t, tau, duration, learning_rate, dtype="float32"):
        real = np.dtype(dtype).type
        self.tau, self.delta_t, self.duration, self.rate, self.n_steps = real(tau), delta_t, duration, learning_rate, 0
        self.weights = [np.ascontiguousarray(layer["weights"], dtype) for layer in layers]
        self.c = [real(layer["threshold"] / tau) for layer in layers]
        self.gradients = [np.zeros((get_num_threads(), *w.shape), dtype) for w in self.weights]
        self.moments = [(np.zeros_like(w), np.zeros_like(w)) for w in self.weights]
        self.states, self.spikes, self.errors = [], [], []
        for layer, w in zip(layers, self.weights, strict=True):
            n, most = w.shape[1], layer["max_spikes"]
            each, all_ = (batch_size, n), (batch_size, n, most)
            self.states.append(
                (
                    *(np.empty(each, dtype) for _ in range(3)), np.empty(each, np.int32), np.empty(all_, dtype),
                    np.empty(all_, np.int32), np.empty(all_, dtype), np.empty(all_, dtype),
                )
            )  # fmt: skip
            events = (batch_size, n * most)
            self.spikes.append(tuple(np.empty(events, t) for t in (np.int32, dtype, np.int32, np.int32)))
            self.errors.append(np.empty(all_, dtype))

    def step(self, inputs, samples, labels):
        """Train on some samples of the inputs."""
        self.backward(inputs, samples, labels)
        self.n_steps += 1
        rate, correction = self.rate / (1 - 0.9**self.n_steps), np.sqrt(1 - 0.999**self.n_steps)
        for w, gradients, moments in zip(self.weights, self.gradients, self.moments, strict=True):
            adam(w, gradients, *moments, w.dtype.type(rate), w.dtype.type(correction), len(samples))

    def backward(self, inputs, samples, labels):
        """Run some samples of the inputs forward and back, and add up gradients."""
        batch = np.arange(len(samples))
        chosen, events = samples, (inputs.start, inputs.count, inputs.neuron, inputs.times, inputs.ticks)
        seen = []
        for w, c, state, spikes in zip(self.weights, self.c, self.states, self.spikes, strict=True):
            n_spikes = np.zeros(len(samples), np.int64)
            seen.append((chosen, *events))
            forward(chosen, *events, w, c, self.tau, self.delta_t, self.duration, state, spikes, n_spikes)
            chosen, start = batch, np.arange(len(samples)) * spikes[0].shape[1]
            events = (start, n_spikes, *(part.reshape(-1) for part in spikes[:3]))
        counts = self.states[-1][3][: len(samples)]
        targets = np.where(np.arange(counts.shape[1]) == labels[:, None], 15, 3)
        self.errors[-1][: len(samples)] = (targets - counts)[:, :, None]
        for i in reversed(range(len(self.weights))):
            below = np.empty((len(samples), 0 if i == 0 else self.spikes[i - 1][0].shape[1]), self.weights[i].dtype)
            backward(
                *seen[i], self.weights[i], self.gradients[i], self.c[i], self.tau, self.delta_t, self.states[i],
                self.spikes[i][3], self.errors[i], below,
            )  # fmt: skip
            if i:
                place, n_spikes = self.spikes[i - 1][3], seen[i][2]
                for s in range(len(samples)):
                    self.errors[i - 1][s].reshape(-1)[place[s, : n_spikes[s]]] = below[s, : n_spikes[s]]
