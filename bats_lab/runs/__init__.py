"""One run: the loss, the optimiser, the epoch loop, what is measured, and the file it leaves behind."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        "checkpoints",
        "evaluation",
        "experiment",
        "files",
        "kept",
        "metrics",
        "optimiser",
        "records",
        "results",
        "store",
        "training",
    ],
)
