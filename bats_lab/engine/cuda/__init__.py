"""The engine on a GPU."""
