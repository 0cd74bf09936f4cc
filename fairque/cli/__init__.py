"""The command line, `fairque`. Commands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations


def main() -> None:
    """The program `fairque`: runs the command of sys.argv and ends the process with its exit code."""
    from fairque.cli.app import run

    raise SystemExit(run())
