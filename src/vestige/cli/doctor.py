"""``vestige doctor``: what is installed, what is missing, how to get it."""

from __future__ import annotations

import os
import platform

from vestige.cli.display import say, show_table
from vestige.dependencies import installed, torchvision_fault
from vestige.record import Cell, Table


def examine() -> int:
    """Print the table; 0 if every core package works, 2 if something must be mended."""
    rows: list[list[Cell]] = [[name, version or "not installed"] for name, version in installed().items()]
    rows.append(["python", platform.python_version()])
    rows.append(["cores", os.cpu_count()])
    fault = torchvision_fault()
    if fault is None:
        rows += _torch_rows()
    show_table(Table(name="doctor", title="This environment", columns=["what", "found"], rows=rows))
    if fault is not None:
        say(f"Broken: torchvision is installed but cannot be imported ({fault}).", "pip uninstall torchvision")
        return 2
    say("Everything that vestige needs is here.")
    return 0


def _torch_rows() -> list[list[Cell]]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return [
        ["device", device],
        ["CPU instructions", torch.backends.cpu.get_cpu_capability()],
        ["threads", torch.get_num_threads()],
    ]
