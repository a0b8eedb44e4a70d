"""Data sets by name: images and labels, where their files lie, and the digits that travel with the package."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["datasets", "download", "readers", "registry", "status"])
