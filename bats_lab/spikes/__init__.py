"""Spike trains, encoders, the time grid, and the tables of collision rules and gradient estimators."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, ["distances", "encoding", "estimators", "grid", "rules", "trains"]
)
