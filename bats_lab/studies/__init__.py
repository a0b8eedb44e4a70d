"""Questions asked of many runs, a folder each."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["chip", "collapse", "estimators", "thesis"])
