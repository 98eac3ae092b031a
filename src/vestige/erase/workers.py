"""Several processes on one erasure: each takes its rows of every batch, and their sums are joined."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """This process among its like.

    Parameters
    ----------
    rank : place of this process, from 0; the first one writes.
    count : of all processes.
    """

    rank: int = 0
    count: int = 1

    @staticmethod
    def of_process() -> Workers:
        """The group that ``torchrun`` started this process in, joined if need be; alone otherwise."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not dist.is_available():
            return Workers()
        if not dist.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return Workers(dist.get_rank(), dist.get_world_size())

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in place, in one exchange a dtype."""
        if self.count == 1:
            return
        for kind in {t.dtype for t in tensors}:
            alike = [t for t in tensors if t.dtype is kind]
            flat = torch.cat([t.flatten() for t in alike])
            dist.all_reduce(flat)
            for tensor, total in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def total(self, value: int) -> int:
        """Sum of a count over all processes."""
        if self.count == 1:
            return value
        cell = torch.tensor([value], device="cuda" if torch.cuda.is_available() else "cpu")
        dist.all_reduce(cell)
        return int(cell)
