"""Dimension and detectors at the scale of Stable Diffusion 1.x: seconds, peak memory and network evaluations on a CPU.

The network has the architecture of the real one, 860 million weights in float32, and random weights: what is measured
here does not depend on them. One point in 16,384 dimensions, one noise level.

python benchmarks/geometry_scale.py            # the true architecture; a few minutes on one core
python benchmarks/geometry_scale.py --small    # a look-alike of 4 x 8 x 8 latents, to see that everything runs
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from rich.console import Console
from table import Row, write

from vestige.audit.geometry.attribution import TokenAttribution
from vestige.audit.geometry.detectors.guidance_norm import GuidanceNorm
from vestige.audit.geometry.dsm import DSM
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.flipd import FLIPD
from vestige.audit.geometry.normal_bundle import NormalBundle
from vestige.errors import Unsupported
from vestige.models.adapters.conditioned import ConditionedDenoiser, from_unet

BUDGET = 16 << 30
"""What one process may hold at its worst, weights and libraries included."""

RATIO = 0.1
console = Console(stderr=True)


@dataclass(frozen=True)
class Form:
    """What of the architecture is not the default of diffusers."""

    side: int
    channels: tuple[int, ...]
    tokens: int
    width: int
    heads: int
    groups: int

    def build(self) -> ConditionedDenoiser:
        """Random weights, and random embeddings of one prompt and of the empty one."""
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=self.side,
            block_out_channels=self.channels,
            cross_attention_dim=self.width,
            attention_head_dim=self.heads,
            norm_num_groups=self.groups,
            down_block_types=(*["CrossAttnDownBlock2D"] * (len(self.channels) - 1), "DownBlock2D"),
            up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * (len(self.channels) - 1)),
        ).requires_grad_(False)
        scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        return from_unet(unet, scheduler, torch.randn(2, self.tokens, self.width), null_condition=1)


TRUE = Form(side=64, channels=(320, 640, 1280, 1280), tokens=77, width=768, heads=8, groups=32)
SMALL = Form(side=8, channels=(32, 64), tokens=5, width=16, heads=8, groups=8)


@dataclass(frozen=True)
class Ran:
    """What a contender took."""

    seconds: float
    core_seconds: float
    peak: int
    evaluations: int
    value: float


def measured(name: str, denoiser: ConditionedDenoiser, call: Callable[[], Any]) -> Ran:
    """Run it once; it answers with one number."""
    reset_peak()
    before, start, busy = denoiser.evaluations, time.perf_counter(), time.process_time()
    value = float(call())
    seconds = time.perf_counter() - start, time.process_time() - busy
    ran = Ran(*seconds, peak_memory(), denoiser.evaluations - before, value)
    console.print(
        f"{name}: {ran.seconds:.1f} s, {ran.core_seconds:.1f} s of cores, {ran.evaluations} evaluations, "
        f"peak {ran.peak / 2**30:.2f} GiB, value {value:.6g}"
    )
    return ran


def reset_peak() -> None:
    """Forget the most bytes resident so far, where Linux lets one."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak_memory() -> int:
    """Most bytes resident since :func:`reset_peak`; since the start where that cannot be."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def rows(form: Form = TRUE) -> list[Row]:
    """One line a contender and quantity.

    Raises
    ------
    RuntimeError : a contender took more memory or evaluations than it may, or what cannot work was not refused.
    """
    denoiser = form.build()
    weights = sum(p.numel() * p.element_size() for p in denoiser.module.parameters())
    console.print(f"{weights / 4e6:,.0f} million weights, {weights / 2**30:.2f} GiB")
    point, told = torch.randn(1, *denoiser.shape), torch.zeros(1, dtype=torch.int64)
    work = Work(batch_size=1)

    def asked(estimator: Any) -> Callable[[], float]:
        return lambda: estimator.curve(denoiser, point, [0], told, work=work).dimension[0, 0]

    contenders: dict[str, tuple[int, Callable[[], Any]]] = {
        "dsm": (2, asked(DSM(ratios=(RATIO,), draws=2))),
        "flipd": (2, asked(FLIPD(ratios=(RATIO,), probes=1, exact=0))),
        "guidance_norm": (2, lambda: GuidanceNorm(draws=1).score(denoiser, point, [0], told, work=work)[0]),
        "token_attribution": (
            4,
            lambda: (
                TokenAttribution(at=(1.0,), draws=1).attribute(denoiser, point, [0], told, work=work).strength.max()
            ),
        ),
    }
    lines: list[Row] = []
    for name, (expected, call) in contenders.items():
        ran = measured(name, denoiser, call)
        if ran.evaluations != expected or ran.peak > BUDGET:
            raise RuntimeError(f"{name} took {ran.evaluations} evaluations and {ran.peak / 2**30:.1f} GiB.")
        lines += [
            Row(f"scale/{name}/evaluations", ran.evaluations, None, "", None, "evaluations", 1),
            Row(f"scale/{name}/seconds", ran.seconds, None, "", None, "s", 1),
            Row(f"scale/{name}/core_seconds", ran.core_seconds, None, "", None, "s of cores", 1),
            Row(
                f"scale/{name}/peak_memory",
                ran.peak / 2**20,
                BUDGET / 2**20,
                "the budget",
                BUDGET / ran.peak,
                "MiB, weights and libraries included",
                1,
            ),
        ]
    if form is TRUE:
        lines.append(refused("normal_bundle", denoiser, asked(NormalBundle(ratios=(RATIO,)))))
        lines.append(refused("full_jacobian", denoiser, asked(FLIPD(ratios=(RATIO,), exact=1 << 20))))
    return lines


def refused(name: str, denoiser: ConditionedDenoiser, call: Callable[[], Any]) -> Row:
    """That a recipe is refused before anything was computed, and with advice."""
    before = denoiser.evaluations
    try:
        call()
    except Unsupported as error:
        console.print(f"{name}: refused. {error}")
        return Row(f"scale/{name}/refused_after", denoiser.evaluations - before, None, "", None, "evaluations", 1)
    raise RuntimeError(f"{name} was not refused.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the look-alike; writes no result")
    small = parser.parse_args().small
    found = rows(SMALL if small else TRUE)
    if not small:
        write("geometry_scale", "One point at the scale of Stable Diffusion 1.x, on a CPU", found)
