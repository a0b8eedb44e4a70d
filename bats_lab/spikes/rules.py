"""The table of collision rules: what becomes of a crossing before the neuron's own last spike has left.

To add a rule is to add a row here, its branch in the kernels (``engine/cpu/forward.py``,
``engine/cuda/kernels/forward.cu``), and its tests.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RULES", "Rule", "rule_code", "rule_named", "rule_on"]


@dataclass(frozen=True)
class Rule:
    """A collision rule: one row of :data:`RULES`.

    Attributes
    ----------
    name : str
    collision : str
        What becomes of a crossing before the neuron's last spike has left, in words.
    resets : bool
        Whether such a crossing resets the neuron.
    delays : bool
        Whether a spike may leave later than on the tick of eq. 14.
    one_a_tick : bool
        Whether a neuron sends at most one spike on a tick.
    clocked : bool
        Whether the potential is read, and reset, at ticks only: the rule has no meaning without a time grid, and no
        crossing is rounded to the grid.
    """

    name: str
    collision: str
    resets: bool = True
    delays: bool = False
    one_a_tick: bool = True
    clocked: bool = False


#: The rules by name; kernels know a rule by its place in this table.
RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("drop", "is ignored and does not reset the neuron", resets=False),
        Rule("merge", "resets the neuron and sends nothing"),
        Rule("defer", "resets the neuron, and its spike leaves on the neuron's next free tick", delays=True),
        Rule("graded", "resets the neuron, and its spike leaves on the same tick", one_a_tick=False),
        Rule("clocked", "does not happen: the potential is read, and reset, at ticks only", clocked=True),
    )
}


def rule_named(name: str, delta_t: float | None = None) -> Rule:
    """Return the rule of a name, checked against a time step if one is given.

    Parameters
    ----------
    name : str
    delta_t : float or None
        Time step in seconds; 0 is continuous time.

    Raises
    ------
    ValueError
        If there is no such rule, or it needs a time grid and `delta_t` is 0.
    """
    if name not in RULES:
        raise ValueError(f"rule is {name!r}; it must be one of {', '.join(RULES)}.")
    if RULES[name].clocked and delta_t == 0:
        raise ValueError(f"rule is {name!r} with delta_t 0; a clock needs a time step above 0.")
    return RULES[name]


def rule_code(name: str) -> int:
    """Return the number by which kernels know a rule.

    Raises
    ------
    ValueError
        If there is no rule of that name.
    """
    return list(RULES).index(rule_named(name).name)


def rule_on(rule: str, delta_t: float) -> str:
    """Return the rule under which a network runs at a time step: in continuous time nothing collides, and all are one.

    Examples
    --------
    >>> rule_on("graded", 0.004), rule_on("graded", 0.0)
    ('graded', 'drop')
    """
    return rule if delta_t else next(iter(RULES))
