"""The thesis' study: what it trains, and each of its claims as a function of results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["claims", "report", "study"],
    {
        "claims": ["CLAIMS", "Claim", "Findings", "judge"],
        "report": ["describe_verdicts", "remedy_table", "verdict_table"],
        "study": ["PLANS", "REMEDY", "Plan", "remedy_configs", "stand_in", "study_configs"],
    },
)
