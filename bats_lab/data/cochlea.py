r"""From sound to the spikes of an ear: the chain that made the Spiking Heidelberg Digits, on 700 channels.

Sound moves the basilar membrane, each place of it in its own band of frequencies (Sieroka, Dosch, Rupp, 2006); hair
cells turn its velocity into transmitter, and that into the probability of a spike (Meddis, 1986); forty of their fibres
meet on a bushy cell, a leaky integrate-and-fire neuron, whose spikes are the channel's. Equations and constants are
those of B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, *The Heidelberg Spiking Data Sets*, IEEE TNNLS 33, 2022.
"""

from __future__ import annotations

import functools
import math

import numba
import numpy as np
from scipy import special

__all__ = ["CHANNELS", "N_SAMPLES", "RATE", "hear", "membrane_velocity", "transfer"]

#: Samples a second of the sound, samples that are heard at most, and channels.
RATE, N_SAMPLES, CHANNELS = 22050, 1 << 15, 700

# The membrane: CGS units; places go from 0 cm, where high frequencies are heard, to 3.5 cm.
_LENGTH, _ALPHA, _STIFFNESS, _OFFSET = 3.5, 3.0, 1e9, 3500.0
_DAMPING, _MASS, _HEIGHT, _DENSITY = 0.15, 0.05, 0.1, 1.0
#: Steps of the integral along the membrane between two channels.
_FINER = 4
#: Frequencies whose transfer is computed together.
_BLOCK = 256
#: Root mean square of the sound that is heard, and the ramp at its ends, in seconds.
_LEVEL, _RAMP = 0.3, 0.03


def hear(sound: np.ndarray, *, seed: int, channels: int = CHANNELS) -> tuple[np.ndarray, np.ndarray]:
    """Turn a sound into spikes.

    Parameters
    ----------
    sound : ndarray, (sample,)
        Air pressure in any unit, 22,050 samples a second; its loudness is made the same for all.
    seed : int
        Seed of the fibres' spikes.
    channels : int
        Places along the membrane, those of high frequencies first.

    Returns
    -------
    channel : ndarray of int16, (event,)
    times : ndarray of float64, (event,)
        In seconds, ascending.

    Raises
    ------
    ValueError
        If the sound is empty, silent or longer than 1.48 s.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 500 * np.arange(4000) / RATE)
    >>> channel, times = hear(tone, seed=0, channels=20)
    >>> loudest = np.linalg.norm(membrane_velocity(tone, channels=20), axis=1).argmax()
    >>> int(loudest), int(np.bincount(channel, minlength=20).argmax())
    (13, 13)
    """
    velocity = membrane_velocity(sound, channels=channels)
    spikes = _nerve(velocity, 1 / RATE, np.uint64(seed))
    tick, channel = np.nonzero(spikes.T)
    return channel.astype(np.int16), tick / RATE


def membrane_velocity(sound: np.ndarray, *, channels: int = CHANNELS) -> np.ndarray:
    """Return how the membrane moves at each place: float64 (channel, sample); the sound as in :func:`hear`."""
    sound = np.array(sound, np.float64)
    if sound.ndim != 1 or not 1 < len(sound) <= N_SAMPLES - int(0.01 * RATE):
        raise ValueError(f"sound has the shape {sound.shape}; it must be 2 to {N_SAMPLES - int(0.01 * RATE)} samples.")
    loudness = math.sqrt(float(np.mean(sound**2)))
    if not (loudness > 0 and math.isfinite(loudness)):
        raise ValueError(f"sound has a root mean square of {loudness}; it must be above 0 and finite.")
    ramp = min(int(_RAMP * RATE), len(sound) // 2)
    rise = np.hanning(2 * ramp)[:ramp]
    sound *= _LEVEL / loudness
    sound[:ramp] *= rise
    sound[len(sound) - ramp :] *= rise[::-1]
    spectrum = np.fft.rfft(sound, N_SAMPLES)
    # The model's phase is that of exp(-iωt).
    return np.stack([np.fft.irfft(np.conj(row) * spectrum)[: len(sound)] for row in transfer(channels)])


@functools.lru_cache(maxsize=1)
def transfer(channels: int = CHANNELS) -> np.ndarray:
    r"""Return the velocity of the membrane for a tone of each frequency of a sound: complex64 (channel, frequency).

    .. math:: v = \frac{2\omega}{\xi}\, \frac{p(x)}{p(0)}\, Z, \quad
        \xi = S - m\omega^2 - \mathrm{i}\omega R, \quad g = \omega\sqrt{\rho / (h\,\xi)}, \quad
        p = \sqrt{G/g}\; H_0^{(1)}(G), \quad G = \frac{2 g(0)}{\alpha} + \int_0^x g

    with the stiffness :math:`S = S_0 e^{-\alpha x} - a`, the damping :math:`R = \delta\sqrt{S_0 m}\, e^{-\alpha x/2}`
    and the impedance :math:`Z` of the outer ear. Of 0 Hz nothing is heard.
    """
    fine = np.linspace(0, _LENGTH, _FINER * (channels - 1) + 1)[:, None]
    stiffness = _STIFFNESS * np.exp(-_ALPHA * fine) - _OFFSET
    damping = _DAMPING * math.sqrt(_STIFFNESS * _MASS) * np.exp(-_ALPHA * fine / 2)
    out = np.zeros((channels, N_SAMPLES // 2 + 1), np.complex64)
    omegas = 2 * np.pi * np.fft.rfftfreq(N_SAMPLES, 1 / RATE)
    width = fine[1, 0] if channels > 1 else 0.0
    for first in range(1, len(omegas), _BLOCK):
        omega = omegas[first : first + _BLOCK]
        xi = stiffness - _MASS * omega**2 - 1j * omega * damping
        wave = omega * np.sqrt(_DENSITY / (_HEIGHT * xi))
        steps = np.concatenate([0 * wave[:1], (wave[1:] + wave[:-1]) * (width / 2)])
        phase = (2 * wave[0] / _ALPHA + np.cumsum(steps, axis=0))[::_FINER]
        wave, xi = wave[::_FINER], xi[::_FINER]
        # exp(i·phase) and what is left of Hankel's function, so that neither leaves the range of numbers.
        amplitude = np.sqrt(phase / wave) * special.hankel1e(0, phase)
        pressure = amplitude / amplitude[0] * np.exp(1j * (phase - phase[0]))
        out[:, first : first + _BLOCK] = 2 * omega / xi * pressure * _outer_ear(omega)
    return out


def _outer_ear(omega: np.ndarray) -> np.ndarray:
    root = 2 * omega / _ALPHA * math.sqrt(2 / (_HEIGHT * _STIFFNESS))
    below = special.j1(root) - 1j * special.y1(root)
    return np.asarray(math.sqrt(2 * _STIFFNESS / _HEIGHT) * (1j * special.j0(root) + special.y0(root)) / below)


@numba.njit(cache=True, nogil=True)
def _uniform(state: np.uint64) -> tuple[np.uint64, float]:
    """Draw a number in [0, 1): SplitMix64 (Steele, Lea, Flood, 2014), the same on every machine."""
    state += np.uint64(0x9E3779B97F4A7C15)
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@numba.njit(cache=True, nogil=True)
def _nerve(velocity: np.ndarray, dt: float, seed: np.uint64) -> np.ndarray:
    """Return the spikes, bool (channel, sample), of hair cells, their fibres, and the bushy cells these meet on."""
    # Hair cell (Meddis): transmitter in the store q, the cleft c and the reprocessing store w.
    replenish, release, loss, reuptake, reprocess = 5.05 * dt, 2000.0 * dt, 2500.0 * dt, 6580.0 * dt, 66.3 * dt
    gain, a, b, full = 50000.0 * dt, 5.0, 300.0, 1.0
    # Fibres, and the bushy cell.
    n_fibres, refractory = 40, round(1e-3 / dt)
    keep_mem, keep_syn, weight = math.exp(-dt / 1e-3), math.exp(-dt / 5e-4), 13e3 / 40 * dt
    n_channels, n_steps = velocity.shape
    spikes = np.zeros((n_channels, n_steps), np.bool_)
    fired = np.zeros(n_steps, np.int64)
    for channel in range(n_channels):
        state = seed * np.uint64(0xD1342543DE82EF95) + np.uint64(channel) * np.uint64(0x2545F4914F6CDD1D)
        at_rest = 2000.0 * a / (a + b)
        cleft = full * 5.05 * at_rest / (2500.0 * at_rest + 5.05 * (2500.0 + 6580.0))
        store, work = cleft * (2500.0 + 6580.0) / at_rest, cleft * 6580.0 / 66.3
        potential, current, free, wait = 0.0, 0.0, n_fibres, 0
        for step in range(n_steps):
            moved = velocity[channel, step] + a
            permeable = release * moved / (moved + b) if moved > 0 else 0.0
            filled = replenish * (full - store) if store < full else 0.0
            ejected, back, again = permeable * store, reuptake * cleft, reprocess * work
            store = max(store + filled - ejected + again, 0.0)
            p = min(gain * cleft, 1.0)
            cleft = max(cleft + ejected - (loss + reuptake) * cleft, 0.0)
            work = max(work + back - again, 0.0)

            # How many of the fibres that are not refractory spike: a binomial number, by inversion.
            if step >= refractory:
                free += fired[step - refractory]
            n = 0
            if p >= 1.0:
                n = free
            elif free > 0 and p > 0.0:
                state, u = _uniform(state)
                chance = (1.0 - p) ** free
                while u >= chance and n < free:
                    u -= chance
                    chance *= (free - n) / (n + 1.0) * p / (1.0 - p)
                    n += 1
            fired[step] = n
            free -= n

            current = current * keep_syn + n
            if wait > 0:
                wait -= 1
                potential = 0.0
                continue
            potential = potential * keep_mem + current * weight
            if potential >= 1.0:
                spikes[channel, step] = True
                potential, wait = 0.0, refractory
    return spikes
