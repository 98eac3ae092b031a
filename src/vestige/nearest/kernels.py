"""Ways to multiply centred pixels exactly, and the choice of the fastest that proves exact on this device.

Centred pixels lie in [-128, 127]. A float32 product over at most 1024 of them is exact, for each partial sum is an
integer of magnitude at most ``1024 * 128**2 == 2**24``, whatever the order of summation. An int8 product with int32
sums is exact over up to 131,071 of them, for ``131071 * 128**2 < 2**31``; it is fast on GPUs and on processors with
VNNI or AMX and slow elsewhere. Some int8 routines saturate in between, so no kernel is taken on its word: each has to
reproduce products of extreme pixels before it is timed. The choice changes the time that a search takes, never a bit
of its result.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

import numpy as np
import torch

_SMALL = 1 << 31  # products below this many multiplications are over before a measurement pays
_PROBE = 384  # rows of the two factors of the measured product on a processor, of 1024 columns
_PROBE_CUDA = 2048
_QUICK = 16  # part of the product that a kernel has to show first
_HOPELESS = 8  # times as long as float32, at which it is not measured further
_PATIENCE = 0.1  # seconds for which a product is repeated, the first of them to warm up


@dataclass(frozen=True)
class Kernel:
    """One way to multiply.

    ``multiply`` takes centred pixels [t, c] and [u, c] of ``dtype``, c at most ``columns``, and gives exact inner
    products [t, u] as float32 or int32.
    """

    name: str
    dtype: torch.dtype
    columns: int
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def float_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left @ right.T`` of float32 tensors by torch."""
    return left @ right.T


def blas_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left @ right.T`` of float32 tensors on the CPU by the BLAS library of numpy."""
    return torch.from_numpy(np.matmul(left.numpy(), right.numpy().T))


def product_into(kernel: Kernel, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Write ``left @ right.T`` of float32 tensors on the CPU to ``out``, by the routine of ``kernel``."""
    if kernel is BLAS:
        np.matmul(left.numpy(), right.numpy().T, out=out.numpy())
    else:
        torch.mm(left, right.T, out=out)


def int8_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left @ right.T`` of int8 tensors with int32 sums, for any shape.

    CUDA wants more than sixteen rows and multiples of eight; the padding is zero and is cut off again.
    """
    t, u = len(left), len(right)
    left, right = _padded(left), _padded(right)
    return torch._int_mm(left, right.T)[:t, :u]  # pyright: ignore[reportPrivateUsage]


FLOAT32 = Kernel("float32", torch.float32, 1024, float_product)
BLAS = Kernel("blas", torch.float32, 1024, blas_product)
INT8 = Kernel("int8", torch.int8, 8192, int8_product)


def fastest(device: torch.device, multiplications: int) -> Kernel:
    """The kernel for a search that multiplies this often on the device.

    Short searches take float32 products unmeasured. Otherwise every kernel that reproduces extreme products is timed
    once per device and number of threads.
    """
    if multiplications < _SMALL:
        return FLOAT32
    return min(_measured(device, torch.get_num_threads()), key=lambda entry: entry[1])[0]


def fastest_float(device: torch.device, multiplications: int) -> Kernel:
    """The same among the kernels that multiply any float32 numbers."""
    if multiplications < _SMALL:
        return FLOAT32
    return min(_measured_float(device, torch.get_num_threads()), key=lambda entry: entry[1])[0]


def speed_of_integers(device: torch.device, multiplications: int) -> float:
    """How many times as fast the fastest kernel is as the fastest float32 kernel, at least 1."""
    if multiplications < _SMALL:
        return 1.0
    measured = _measured(device, torch.get_num_threads())
    return min(s for k, s in measured if k.dtype == torch.float32) / min(s for _, s in measured)


def proves_exact(kernel: Kernel, device: torch.device) -> bool:
    """Whether the kernel reproduces the products of extreme and of random pixels over all its columns."""
    pixels = np.random.default_rng(0).integers(-128, 128, (24, kernel.columns))
    pixels[0], pixels[1], pixels[2, ::2], pixels[2, 1::2] = -128, 127, -128, 127
    centred = torch.from_numpy(pixels).to(device, kernel.dtype)
    try:
        found = kernel.multiply(centred, centred[:19])
    except (RuntimeError, NotImplementedError):
        return False
    return bool((found.cpu().to(torch.int64).numpy() == pixels @ pixels[:19].T).all())


@lru_cache(maxsize=16)
def _measured(device: torch.device, threads: int) -> tuple[tuple[Kernel, float], ...]:
    """Seconds of the same product by each kernel that proves exact; the torch float32 kernel always counts."""
    measured = _measured_float(device, threads)
    if not proves_exact(INT8, device):
        return measured
    # A few rows first: where int8 is slow, it is slow by far, and the full measurement would take half a second.
    quick = _seconds(INT8, device, _QUICK)
    return *measured, (INT8, quick if quick > _HOPELESS * measured[0][1] else _seconds(INT8, device))


@lru_cache(maxsize=16)
def _measured_float(device: torch.device, threads: int) -> tuple[tuple[Kernel, float], ...]:
    """The same of the kernels that multiply any float32 numbers."""
    measured = [(FLOAT32, _seconds(FLOAT32, device))]
    if device.type == "cpu" and threads == _cores() and proves_exact(BLAS, device):
        measured.append((BLAS, _seconds(BLAS, device)))  # it has its own threads, so only where torch uses all cores
    return tuple(measured)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _seconds(kernel: Kernel, device: torch.device, share: int = 1) -> float:
    """Seconds of the measured product, from one of a ``share`` as many rows of the left factor."""
    side = _PROBE_CUDA if device.type == "cuda" else _PROBE
    right = torch.zeros((side, 1024), device=device, dtype=kernel.dtype)
    left = right[: side // share]
    best, began = float("inf"), perf_counter()
    while perf_counter() - began < _PATIENCE:
        start = perf_counter()
        kernel.multiply(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, perf_counter() - start)
    return best * share


def _padded(centred: torch.Tensor) -> torch.Tensor:
    rows, columns = centred.shape
    tall, wide = max(24, -(-rows // 8) * 8), -(-columns // 8) * 8
    if (tall, wide) == (rows, columns):
        return centred.contiguous()
    padded = centred.new_zeros((tall, wide))
    padded[:rows, :columns] = centred
    return padded
