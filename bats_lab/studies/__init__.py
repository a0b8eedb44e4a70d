"""Questions asked of many runs, a folder each; :mod:`registry` lists them, :mod:`study` says what each has."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        "chip",
        "collapse",
        "counts",
        "estimators",
        "experiments",
        "panels",
        "registry",
        "statistics",
        "study",
        "tables",
        "thesis",
        "transfer",
    ],
    {
        "counts": ["by_counts", "own_counts"],
        "registry": ["REGISTRY", "load_study"],
        "study": ["Reproduction", "Study", "Verdict", "reproduce"],
        "tables": ["in_markdown", "show_table"],
    },
)
