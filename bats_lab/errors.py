"""The exceptions a caller may want to catch; bad arguments raise the built-in ValueError and TypeError."""

from __future__ import annotations

from typing import Any

__all__ = ["BatsLabError", "DataError", "DeviceError", "DivergedError", "ResultsError", "StoppedError", "StoreError"]


class BatsLabError(Exception):
    """Base of everything this package raises but for bad arguments."""


class DataError(BatsLabError):
    """A data file is missing, damaged or of the wrong shape, or a download failed."""


class DeviceError(BatsLabError):
    """The device asked for cannot be used here."""


class ResultsError(BatsLabError):
    """A results file cannot be read or does not keep to the schema."""


class StoreError(BatsLabError):
    """A store of results, named by a URL, cannot be reached or refuses."""


class DivergedError(BatsLabError):
    """Training stopped because a loss or a weight was no longer finite.

    Attributes
    ----------
    epoch : int
        Epoch in which it happened, 1-based.
    layer : str
        Name of the first layer with a value that is not finite.
    records : list
        What was measured in the epochs before.
    dataset : xarray.Dataset or None
        The same as a results Dataset, where an experiment made one.
    """

    def __init__(self, message: str, *, epoch: int, layer: str, records: list[Any]) -> None:
        super().__init__(message)
        self.epoch, self.layer, self.records = epoch, layer, records
        self.dataset: Any = None


class StoppedError(DivergedError):
    """Training was ended after an epoch by who watches it, as a search does with a run that clearly loses.

    What is called after each epoch raises it; the attributes are those of a run that diverged.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"The run was ended after epoch {epoch}: others do better.", epoch=epoch, layer="", records=[])
