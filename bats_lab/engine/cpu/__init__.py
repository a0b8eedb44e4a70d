"""The engine on the CPU, compiled by numba: spikes in order, forward, backward, read-out, and the networks."""
