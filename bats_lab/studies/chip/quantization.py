"""Weights of few bits: integers times one scale a layer; as the engine rounds them where it trains with such words."""

from bats_lab.engine.quantization import TRAINED, quantization_scales, quantize_weights

__all__ = ["TRAINED", "quantization_scales", "quantize_weights"]
