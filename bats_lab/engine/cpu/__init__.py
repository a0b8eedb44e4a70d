"""The engine on the CPU, compiled by numba: spikes in order, forward, backward, read-out, and the networks."""

from bats_lab.engine.cpu.compiling import tell_of_compiling

tell_of_compiling()
