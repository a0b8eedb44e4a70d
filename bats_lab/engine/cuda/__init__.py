"""The engine on a GPU: the device, samples, layers, and the networks that launch ``kernels/*.cu``."""
