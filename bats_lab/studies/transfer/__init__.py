"""Networks trained at one time step, by exact and by surrogate gradients, and tested at others."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["plots", "report", "study", "surrogate"],
    {
        "plots": ["plot_transfer"],
        "report": ["PUBLISHED", "own_clock_table", "transfer_table"],
        "study": ["TIME_STEPS", "open_transfer", "run_transfer", "transfer_configs"],
        "surrogate": ["evaluate_on_clock", "train_on_clock"],
    },
)
