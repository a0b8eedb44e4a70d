"""The collision rules: what happens to a crossing before the neuron's last spike has left."""

from __future__ import annotations

__all__ = ["RULES", "rule_code"]

RULES = ("drop", "merge", "defer", "graded", "clocked")


def rule_code(rule: str) -> int:
    """Return the number by which kernels know a collision rule: its place in :data:`bats_lab.spikes.rules.RULES`.

    Raises
    ------
    ValueError
        If there is no rule of that name.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; it must be one of {', '.join(RULES)}.")
    return RULES.index(rule)
