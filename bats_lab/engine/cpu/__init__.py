"""The engine on the CPU, compiled by numba."""
