"""Data sets by name: images or events and labels, where their files lie, and the digits that travel along."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, ["datasets", "download", "readers", "recordings", "registry", "status"]
)
