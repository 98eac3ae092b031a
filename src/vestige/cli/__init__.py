"""The command line. Importing it imports no torch; each command loads what it needs."""

from vestige.cli.main import main

__all__ = ["main"]
