"""How often what readers are given is damaged."""

from __future__ import annotations

from hypothesis import settings

#: Of the profile ``thorough``, for each reader.
THOROUGH = 10_000


def attempts(often: int = 1) -> int:
    """Return how many damaged inputs a reader is given: a look, `often` times as long; of ``thorough`` 10,000."""
    usual = settings().max_examples
    return THOROUGH if usual >= settings.get_profile("thorough").max_examples else often * usual
