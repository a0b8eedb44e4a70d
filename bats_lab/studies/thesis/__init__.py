"""The thesis' study: what it trains, and each of its claims as a function of results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["claims", "report"],
    {
        "claims": ["CLAIMS", "STUDIES", "Claim", "Findings", "Study", "Verdict", "judge", "stand_in", "study_configs"],
        "report": ["describe_verdicts", "verdict_table"],
    },
)
