"""Networks as people build them: layers and weights, one neuron to look at, how spike times depend on weights."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["feedforward", "gradient_check", "neuron", "sensitivity"])
