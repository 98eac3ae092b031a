"""How work is carried out: what a job may use and where it keeps results."""

from vestige.execute.context import Context

__all__ = ["Context"]
