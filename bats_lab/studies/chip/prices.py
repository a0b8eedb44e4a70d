"""What others have published about the energy of operations on chips: each price, how it is known, and its source."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from bats_lab.engine.quantization import TRAINED

__all__ = ["CMOS_45NM", "HARDWARE", "NO_ENERGY", "SOURCES", "Hardware", "Price", "energy_table"]

#: What stands in tables and legends where nobody has published joules.
NO_ENERGY = "no published energy"


@dataclass(frozen=True)
class Price:
    """What one operation costs, and how that is known.

    Attributes
    ----------
    value : float
        Energy in J; of `static_power`, W; of times, s.
    how : str
        ``measured`` on silicon, ``simulated`` before there was any, ``derived`` here from such numbers, or ``assumed``.
    source : str
        Key of :data:`SOURCES`.
    """

    value: float
    how: str
    source: str


#: Publications that prices are taken from.
SOURCES = {
    "Davies 2018": 'M. Davies et al. (2018). "Loihi: A Neuromorphic Manycore Processor with On-Chip Learning". IEEE '
    "Micro 38(1), 82–99, Table 2: pre-silicon simulations (SDF and SPICE).",
    "Blouw 2019": 'P. Blouw, X. Choo, E. Hunsberger & C. Eliasmith (2019). "Benchmarking Keyword Spotting Efficiency '
    'on Neuromorphic Hardware". NICE; arXiv:1812.01739. Idle power of a chip, 29 mW (leakage and waiting x86 cores).',
    "SANA-FE": "Loihi's description in SANA-FE (J. A. Boyle et al., IEEE TCAD 44(8), 3165–3178, 2025), which refines "
    "Davies 2018 by operation.",
    "Timcheck 2023": 'J. Timcheck et al. (2023). "The Intel neuromorphic DNS challenge". Neuromorphic Computing and '
    "Engineering 3(3), 034005.",
    "Höppner 2019": 'S. Höppner et al. (2019). "Dynamic Power Management for Neuromorphic Many-Core Systems". IEEE '
    "Transactions on Circuits and Systems I 66(8), 2973–2986; arXiv:1903.08941. A 28 nm prototype.",
    "Tang 2023": 'G. Tang et al. (2023). "SENECA: building a fully digital neuromorphic processor". Frontiers in '
    "Neuroscience 17, Table 3, which gives 10 pJ with reference to S. Höppner et al. (2021), arXiv:2103.08392.",
    "Horowitz 2014": 'M. Horowitz (2014). "Computing\'s energy problem (and what we can do about it)". IEEE '
    "International Solid-State Circuits Conference (ISSCC), Digest of Technical Papers, 10–14.",
}

#: Energy in J of single operations in 45 nm CMOS (Horowitz 2014); a multiply-add is the sum of its two.
CMOS_45NM: dict[str, float] = {
    "float32 add": 0.9e-12,
    "float32 multiply": 3.7e-12,
    "float32 multiply-add": 4.6e-12,
    "int8 add": 0.03e-12,
    "int32 add": 0.1e-12,
    "int8 multiply": 0.2e-12,
    "int32 multiply": 3.1e-12,
    "8 KB SRAM read, 64 bit": 10e-12,
    "32 KB SRAM read, 64 bit": 20e-12,
    "1 MB SRAM read, 64 bit": 100e-12,
}


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What is published about one chip; None is not published, or part of another price.

    Attributes
    ----------
    name : str
        Chip or technology.
    synaptic_event : Price or None
        Per synaptic event.
    neuron_update, idle_update : Price or None
        Per update of a neuron that has a potential or current; and of one that has neither (None: as the other).
    spike : Price or None
        Per spike of a neuron, to make it.
    message : Price or None
        Per spike, input or not, and core it is brought to.
    barrier : Price or None
        Per tick and core.
    static_power : Price or None
        W per core, busy or not.
    event_time, update_time, barrier_time : Price or None
        Time in s of one synaptic event and of one update on a core, and of the barrier of a tick.
    relative_update : float or None
        Synaptic events that cost as much as one neuron update, where only that is published.
    neurons_per_core, weight_bits_per_core : float
        What fits one core.
    max_bits : int
        Longest word of a weight.
    priced_by_word : bool
        Whether memory is paid access by access, by word length and size of the memory, as
        :func:`memory_access` has it; where not, it is in the price of an event and of an update.
    as_trained : Hardware or None
        Prices for weights as trained, where `max_bits` does not hold them; None: cannot run them.
    note : str
        What the numbers leave out.
    """

    name: str
    synaptic_event: Price | None = None
    neuron_update: Price | None = None
    idle_update: Price | None = None
    spike: Price | None = None
    message: Price | None = None
    barrier: Price | None = None
    static_power: Price | None = None
    event_time: Price | None = None
    update_time: Price | None = None
    barrier_time: Price | None = None
    relative_update: float | None = None
    neurons_per_core: float = math.inf
    weight_bits_per_core: float = math.inf
    max_bits: int = TRAINED
    priced_by_word: bool = False
    as_trained: Hardware | None = None
    note: str

    @property
    def published(self) -> bool:
        """Whether energies are published at all; if not, operations can be counted but not turned into joules."""
        return self.synaptic_event is not None

    def prices(self) -> Iterator[tuple[str, Price]]:
        """Yield all prices that are known, by name."""
        for field in fields(self):
            if isinstance(price := getattr(self, field.name), Price):
                yield field.name, price


def _simulated(value: float, source: str = "Davies 2018") -> Price:
    return Price(value, "simulated", source)


#: A chip's 29 mW, shared by its 128 cores.
_LOIHI_CORE = Price(29e-3 / 128, "measured", "Blouw 2019")
_LOIHI: dict[str, Any] = {
    # Two messages a core: what is under way has come, and the next tick begins.
    "barrier": Price(2 * (1.7e-12 + 3.5e-12), "derived", "Davies 2018"),
    "static_power": _LOIHI_CORE,
    "event_time": _simulated(3.5e-9),
    "update_time": _simulated(8.4e-9),
    "barrier_time": _simulated(465e-9),
    "neurons_per_core": 1024,
    "weight_bits_per_core": 8 * 128 * 1024,
    "max_bits": 9,
}

#: The table of published energies, by name.
HARDWARE: dict[str, Hardware] = {
    hardware.name: hardware
    for hardware in (
        Hardware(
            name="Loihi",
            synaptic_event=_simulated(23.6e-12),
            neuron_update=_simulated(81e-12),
            idle_update=_simulated(52e-12),
            # Within a tile 1.7 pJ; one hop between tiles, 3.0 pJ east and west, 4.0 north and south.
            message=Price(1.7e-12 + 3.5e-12, "derived", "Davies 2018"),
            note="14 nm. An event is the minimum, its memory included; a message goes one hop. The barrier's energy is "
            "not published: two messages a core and tick. Leakage is the share of the cores in use; the whole chip "
            "takes 128 cores' worth, and 70 mW more while its x86 cores attend to it, who also bring the inputs.",
            **_LOIHI,
        ),
        Hardware(
            name="Loihi (SANA-FE)",
            synaptic_event=_simulated(35.5e-12, "SANA-FE"),
            neuron_update=_simulated(51.2e-12 + 21.6e-12, "SANA-FE"),
            idle_update=_simulated(51.2e-12, "SANA-FE"),
            spike=_simulated(69.3e-12, "SANA-FE"),
            message=_simulated(111e-12 + 3.6e-12, "SANA-FE"),
            note="The same chip by the prices of a simulator's description of it: a dense synapse, and a message with "
            "one hop. Leakage and barrier as for Loihi.",
            **_LOIHI,
        ),
        Hardware(
            name="Loihi 2",
            relative_update=10,
            note="No energy per operation is published, only a proxy of power without a unit of energy: synaptic "
            "operations + 10 × neuron updates (Timcheck 2023).",
        ),
        Hardware(
            name="SpiNNaker 2 prototype",
            synaptic_event=Price(450e-12, "measured", "Höppner 2019"),
            neuron_update=Price(2.19e-9, "measured", "Höppner 2019"),
            note="Computes neurons and synapses in software, in floats. Leakage, routing and barrier are not priced "
            "by operation: only the sum without leakage is known, and it is too low.",
        ),
        Hardware(
            name="SpiNNaker 2",
            synaptic_event=Price(10e-12, "measured", "Tang 2023"),
            neuron_update=Price(2.19e-9, "measured", "Höppner 2019"),
            note="22 nm. The price of an event from a survey, forty-five times less than the prototype's; that of an "
            "update is the prototype's, as no other is published. Only the sum without leakage is known.",
        ),
        Hardware(
            name="45 nm CMOS",
            synaptic_event=Price(CMOS_45NM["int32 add"], "derived", "Horowitz 2014"),
            neuron_update=Price(
                2 * CMOS_45NM["int32 multiply"] + 2 * CMOS_45NM["int32 add"], "derived", "Horowitz 2014"
            ),
            static_power=Price(1e-3, "assumed", "Horowitz 2014"),
            max_bits=16,
            priced_by_word=True,
            as_trained=Hardware(
                name="45 nm CMOS, floats",
                synaptic_event=Price(CMOS_45NM["float32 add"], "derived", "Horowitz 2014"),
                neuron_update=Price(
                    2 * CMOS_45NM["float32 multiply"] + 2 * CMOS_45NM["float32 add"], "derived", "Horowitz 2014"
                ),
                static_power=Price(1e-3, "assumed", "Horowitz 2014"),
                priced_by_word=True,
                note="",
            ),
            note="A chip that does not exist, for comparison with a dense network in the same technology: one add an "
            "event, two multiplications and two adds an update, and every access to memory by word and size. Routing "
            "is not in it; a leakage of 1 mW is assumed.",
        ),
    )
}


def energy_table(hardware: Mapping[str, Hardware] = HARDWARE) -> pd.DataFrame:
    """Lay out prices for reading, one row a price: what it is, how it is known, and its source."""
    rows = []
    for name, each in hardware.items():
        for operation, price in each.prices():
            rows.append(
                {
                    "hardware": name,
                    "of": operation.replace("_", " "),
                    "price": _quantity(operation, price.value),
                    "how": price.how,
                    "source": "" if price.how == "assumed" else SOURCES[price.source],
                    "note": each.note,
                }
            )
        if each.relative_update is not None:
            update = {"of": "neuron update", "price": f"{each.relative_update:g} synaptic events", "how": NO_ENERGY}
            rows.append({"hardware": name} | update | {"source": SOURCES["Timcheck 2023"], "note": each.note})
    return pd.DataFrame(rows)


def _quantity(operation: str, value: float) -> str:
    if operation == "static_power":
        return f"{1e3 * value:.3g} mW"
    return f"{1e9 * value:g} ns" if operation.endswith("_time") else f"{1e12 * value:g} pJ"
