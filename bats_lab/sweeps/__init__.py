"""Many runs: grids of parameters executed as notebooks by Papermill, and resumed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        *(
            "cluster",
            "execute",
            "folder",
            "grid",
            "journal",
            "notebooks",
            "plan",
            "pool",
            "progress",
            "remote",
            "search",
            "space",
        ),
        *("standby", "sweep", "training", "worker"),
    ],
)
