"""Networks as people build them, or bring them: layers and weights, graphs on any platform, one neuron to look at."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        "autopsy",
        "comparison",
        "exact",
        "feedforward",
        "gradient_check",
        "graphs",
        "interchange",
        "neuron",
        "platforms",
        "sensitivity",
    ],
)
