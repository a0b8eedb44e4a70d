"""What makes a shell complete the command line: commands, options, values that can be listed, and folders."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping

__all__ = ["SHELLS", "completion"]

#: What completion is offered for.
SHELLS = ("bash", "zsh", "fish")


def completion(parser: argparse.ArgumentParser, shell: str, values: Mapping[str, Collection[str]]) -> str:
    """Write the script that makes a shell complete a command line.

    Parameters
    ----------
    parser : ArgumentParser
        The command line; it is changed, and of no other use afterwards.
    shell : str
        One of :data:`SHELLS`.
    values : mapping of str to collection of str
        What an argument can be, by its `dest`. Where its metavar is a folder, folders are completed.

    Raises
    ------
    ValueError
        If there is no such shell.
    """
    import shtab  # of use to this command alone

    if shell not in SHELLS:
        raise ValueError(f"shell is {shell!r}; it must be one of {', '.join(SHELLS)}.")
    for action in _actions(parser):
        if action.dest in values:
            action.choices = list(values[action.dest])
        elif action.metavar in ("DIR", "FOLDER", "folder"):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.dest == "dataset":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell=shell)
    if shell == "zsh":  # whose set-up need not have started completion
        script = script.replace("\n", "\nwhence compdef > /dev/null || { autoload -Uz compinit && compinit; }\n", 1)
    return script


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
