"""Geometry: known manifolds next to scikit-dimension, trained networks next to FLIPD as published, and evaluations.

python benchmarks/geometry.py --models DIR      # trains the networks of known dimension first, if they are missing
python benchmarks/geometry.py --scale 0.2       # a trial
python benchmarks/geometry.py --large           # one point of the Stable Diffusion 1 architecture as well
"""

from __future__ import annotations

import argparse
from pathlib import Path

import geometry_learned
import geometry_manifolds
import geometry_scale
import torch
from table import RESULTS, Row, write

from vestige.audit.geometry.dsm import DSM
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.flipd import FLIPD
from vestige.audit.geometry.levels import RATIOS
from vestige.models.oracle import gaussian_denoiser

_PROBES, _DRAWS, _SIDE, _POINTS = 16, 8, 12, 3


def evaluations() -> list[Row]:
    """Network evaluations a point and level, counted, beside what the public code spends on the same estimate.

    The public code evaluates the point again with every product, so K probes cost 2 K; the denoising loss of m draws
    costs m in both.
    """
    model = gaussian_denoiser(torch.zeros(1, _SIDE, _SIDE), torch.eye(_SIDE**2))
    clean = torch.zeros(_POINTS, 1, _SIDE, _SIDE)
    lines: list[Row] = []
    for name, estimator, public in (
        ("flipd", FLIPD(probes=_PROBES, exact=0), 2 * _PROBES),
        ("dsm", DSM(draws=_DRAWS), _DRAWS),
    ):
        before = model.evaluations
        estimator.curve(model, clean, range(_POINTS), work=Work())
        spent = (model.evaluations - before) / _POINTS / len(RATIOS)
        unit = f"evaluations a point and level, {_PROBES if name == 'flipd' else _DRAWS} draws"
        lines.append(Row(f"{name}/evaluations", spent, public, "the public code", public / spent, unit, _POINTS))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("known-dimension"), help="folder of the trained networks")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the points of each manifold and mixture")
    parser.add_argument("--large", action="store_true", help="the Stable Diffusion 1 architecture as well")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for geometry.json")
    options = parser.parse_args()
    lines = geometry_manifolds.rows(options.scale)
    lines += geometry_learned.rows(options.models, max(10, round(200 * options.scale)))
    lines += evaluations()
    if options.large:
        lines += geometry_scale.rows()
    write("geometry", "Geometry", lines, options.out)


if __name__ == "__main__":
    main()
