"""The studies by name. To add one: a folder with a :class:`Study <bats_lab.studies.study.Study>`, and a row here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bats_lab.studies.study import Study

__all__ = ["REGISTRY", "load_study"]


class Row(NamedTuple):
    """Where a study is defined (imported when it is asked for), and what it asks, in a few words."""

    module: str
    variable: str
    question: str


#: In the order in which ``bats-lab reproduce all`` runs them.
REGISTRY = {
    "mnist": Row("bats_lab.studies.thesis.study", "MNIST", "the thesis' claims about MNIST"),
    "emnist": Row("bats_lab.studies.thesis.study", "EMNIST", "the thesis' claims about EMNIST"),
    "fashion_mnist": Row("bats_lab.studies.thesis.study", "FASHION_MNIST", "the thesis' claims about Fashion-MNIST"),
    "collapse": Row("bats_lab.studies.collapse.study", "STUDY", "why training fails at coarse time steps"),
    "estimators": Row("bats_lab.studies.estimators.study", "STUDY", "gradient estimators of the time grid, compared"),
    "time": Row("bats_lab.studies.timing.study", "STUDY", "what the clock does where timing is the information"),
    "transfer": Row("bats_lab.studies.transfer.study", "STUDY", "networks trained on one clock, tested on others"),
    "chip": Row("bats_lab.studies.chip.study", "STUDY", "trained networks on clocks, with weights of few bits"),
}


def load_study(name: str) -> Study:
    """Return a study of :data:`REGISTRY`, whose module is imported now; raises ValueError where there is no such study.

    >>> load_study("chip").notebook
    '35_from_training_to_chip'
    """
    if name not in REGISTRY:
        raise ValueError(f"There is no study {name!r}; there are {', '.join(REGISTRY)} and all.")
    row = REGISTRY[name]
    study: Study = getattr(import_module(row.module), row.variable)
    return study
