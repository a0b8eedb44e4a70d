"""Spike trains: the one type that passes between stages.

Spikes of many samples are kept as one flat list of events (structure of arrays), sorted by time within each
sample. A batch is a set of sample indices into that list, so nothing is copied to form one. Outside
the engine, :meth:`Spikes.padded` turns the list into an array over neurons, for people and plots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Spikes"]


@dataclass(frozen=True)
class Spikes:
    """Spikes of a layer for many samples.

    Attributes
    ----------
    start, count : ndarray of int64, (sample,)
        The events of sample `i` are ``start[i] : start[i] + count[i]``.
    neuron : ndarray of int32, (event,)
        Neuron that fired.
    times : ndarray of float32 or float64, (event,)
        Continuous spike time, in seconds.
    ticks : ndarray of int32, (event,)
        Tick on which the spike is sent, as a multiple of `delta_t`; 0 everywhere in continuous time.
    n_neurons : int
        Neurons of the layer.
    delta_t : float
        Time step in seconds; 0 for continuous time.

    Within a sample events ascend by the time at which they are sent: by `ticks` on a grid, by `times`
    in continuous time.
    """

    start: np.ndarray
    count: np.ndarray
    neuron: np.ndarray
    times: np.ndarray
    ticks: np.ndarray
    n_neurons: int
    delta_t: float = 0.0

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def from_padded(cls, times: np.ndarray, *, dtype: str = "float64") -> Spikes:
        """Build continuous-time spike trains from padded times.

        Parameters
        ----------
        times : ndarray, (sample, neuron, spike) or (sample, neuron)
            Spike times in seconds, in any order; ``inf`` where there is no spike.
        dtype : str
            Type in which times are kept.

        Examples
        --------
        >>> spikes = Spikes.from_padded(np.array([[0.02, np.inf, 0.01]]))
        >>> spikes.neuron, spikes.times
        (array([2, 0], dtype=int32), array([0.01, 0.02]))
        """
        times = np.asarray(times, dtype=dtype)
        times = times[..., None] if times.ndim == 2 else times
        if times.ndim != 3:
            raise ValueError(
                f"times has {times.ndim} dimensions; it must have (sample, neuron) or (sample, neuron, spike)."
            )
        if np.isnan(times).any() or (times < 0).any():
            raise ValueError("times holds NaN or a negative time; spike times must be at least 0, inf for no spike.")
        n_samples, n_neurons, n_spikes = times.shape
        flat = times.reshape(n_samples, n_neurons * n_spikes)
        order = np.argsort(flat, axis=1, kind="stable")
        count = np.isfinite(flat).sum(axis=1).astype(np.int64)
        kept = np.arange(flat.shape[1]) < count[:, None]
        return cls(
            start=np.cumsum(count) - count,
            count=count,
            neuron=(order // n_spikes)[kept].astype(np.int32),
            times=np.take_along_axis(flat, order, axis=1)[kept],
            ticks=np.zeros(int(count.sum()), np.int32),
            n_neurons=n_neurons,
        )

    @classmethod
    def from_events(
        cls, sample: np.ndarray, neuron: np.ndarray, times: np.ndarray, *, n_samples: int, n_neurons: int
    ) -> Spikes:
        """Build continuous-time spike trains from events in any order.

        Parameters
        ----------
        sample, neuron : ndarray of int, (event,)
            Sample and neuron of each spike, below `n_samples` and `n_neurons`.
        times : ndarray of float, (event,)
            Spike times in seconds, at least 0.
        n_samples, n_neurons : int

        Examples
        --------
        >>> spikes = Spikes.from_events([0, 2, 0], [1, 1, 1], [0.3, 0.1, 0.2], n_samples=3, n_neurons=2)
        >>> spikes.count, spikes.times
        (array([2, 0, 1]), array([0.2, 0.3, 0.1]))
        """
        sample, neuron, times = np.asarray(sample), np.asarray(neuron), np.asarray(times, np.float64)
        for name, values, below in (("sample", sample, n_samples), ("neuron", neuron, n_neurons)):
            if len(values) and not (values.min() >= 0 and values.max() < below):
                raise ValueError(
                    f"{name} goes from {values.min()} to {values.max()}; it must be from 0 to {below - 1}."
                )
        if not (np.isfinite(times) & (times >= 0)).all():
            raise ValueError("times holds one that is negative or not finite; spike times must be at least 0.")
        order = np.lexsort((neuron, times, sample))
        count = np.bincount(sample, minlength=n_samples).astype(np.int64)
        return cls(
            start=np.cumsum(count) - count,
            count=count,
            neuron=neuron[order].astype(np.int32),
            times=times[order],
            ticks=np.zeros(len(times), np.int32),
            n_neurons=n_neurons,
        )

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return neurons, continuous times and sent times (seconds) of one sample's events."""
        part = slice(self.start[index], self.start[index] + self.count[index])
        return self.neuron[part], self.times[part], self.sent_times[part]

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return sample and place in the flat list of all events: how far it is into its sample, from its start."""
        sample = np.repeat(np.arange(len(self)), self.count)
        return sample, np.arange(len(sample)) + np.repeat(self.start - np.cumsum(self.count) + self.count, self.count)

    def __getitem__(self, samples: slice | np.ndarray) -> Spikes:
        """Return some samples, by a slice or an array of numbers as NumPy takes them; events are not copied.

        Examples
        --------
        >>> Spikes.from_padded(np.array([[0.02, 0.01], [0.03, np.inf]]))[:1].events()
        (array([0, 0]), array([1, 0], dtype=int32), array([0.01, 0.02]))
        """
        return replace(self, start=self.start[samples], count=self.count[samples])

    def packed(self) -> Spikes:
        """Return the same spikes, sample after sample, without those that samples were chosen from."""
        _, index = self._places()
        arrays = {name: getattr(self, name)[index] for name in ("neuron", "times", "ticks")}
        return replace(self, start=np.cumsum(self.count) - self.count, **arrays)

    def events(self, *, sent: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return sample, neuron and time (seconds, float64) of all events, sample by sample: sent, or continuous.

        Examples
        --------
        >>> Spikes.from_padded(np.array([[0.02, np.inf, 0.01], [np.inf, 0.03, np.inf]])).events()
        (array([0, 0, 1]), array([2, 0, 1], dtype=int32), array([0.01, 0.02, 0.03]))
        """
        sample, index = self._places()
        times = (self.sent_times if sent else self.times)[index].astype(np.float64)
        return sample, self.neuron[index], times

    @property
    def sent_times(self) -> np.ndarray:
        """Time at which each event is sent, in seconds: on the grid, or as it is in continuous time."""
        return self.times if self.delta_t == 0 else self.ticks * self.delta_t

    def padded(self, max_spikes: int | None = None, *, sent: bool = False) -> np.ndarray:
        """Return spike times as (sample, neuron, spike), ascending in each neuron, ``inf`` where there is no spike.

        Parameters
        ----------
        max_spikes : int or None
            Length of the last axis; None: as many as the busiest neuron fired.
        sent : bool
            Whether to return the times at which spikes are sent in place of continuous ones.
        """
        sample, index = self._places()
        neuron, value = self.neuron[index], (self.sent_times if sent else self.times)[index]
        order = np.lexsort((value, neuron, sample))
        sample, neuron, value = sample[order], neuron[order], value[order]
        train = sample * self.n_neurons + neuron
        first = np.searchsorted(train, train, side="left")
        rank = np.arange(len(train)) - first
        width = int(rank.max(initial=-1)) + 1 if max_spikes is None else max_spikes
        out = np.full((len(self), self.n_neurons, width), np.inf, dtype=self.times.dtype)
        keep = rank < width
        out[sample[keep], neuron[keep], rank[keep]] = value[keep]
        return out
