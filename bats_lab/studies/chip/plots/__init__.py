"""Plots of deployments, one kind of picture a file."""
