"""Portraits of a synthetic family tree: identification, order, and a contact sheet to judge by eye.

    python benchmarks/portrait.py [--out DIR] [--bases 100] [--psi 0.9] [--network OWN.safetensors]

Writes ``portrait.json`` and ``portrait.png`` into ``benchmarks/results`` unless told otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from table import RESULTS

from vestige.fingerprint.portrait.painter import TRUNCATION, Painter
from vestige.fingerprint.portrait.study import FamilyPortraits, FamilyStudy
from vestige.metrics.interval import Interval
from vestige.models.adapters.stylegan2.files import load_stylegan2
from vestige.models.adapters.stylegan2.network import Truncation
from vestige.zoo.portrait import WEIGHTS


def results(found: FamilyPortraits) -> dict[str, Interval]:
    """Every number of the study by name."""
    cosines = found.study.cosines
    numbers = {f"identified@{c:g}": value for c, value in zip(cosines, found.identified(), strict=True)}
    numbers |= {f"distance@{c:g}": value for c, value in zip(cosines, found.to_base(), strict=True)}
    return {**numbers, "distance@strangers": found.to_strangers(), "spearman": found.monotone()}


def main() -> None:
    """Read options, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--bases", type=int, default=100)
    parser.add_argument("--psi", type=float, default=TRUNCATION.psi)
    parser.add_argument("--network", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    study = FamilyStudy(bases=options.bases)
    painter = Painter(load_stylegan2(options.network), Truncation(options.psi))
    found = study.run(painter)
    numbers = {name: dataclasses.asdict(interval) for name, interval in results(found).items()}
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"study": dataclasses.asdict(study), "psi": options.psi, "painter": painter.digest, "results": numbers}
    (options.out / "portrait.json").write_text(json.dumps(content, indent=2) + "\n")
    found.contact_sheet().quantize(256).save(options.out / "portrait.png", optimize=True)
    for name, value in numbers.items():
        print(f"{name:22} {value['value']:8.3f}  [{value['low']:.3f}, {value['high']:.3f}]  n {value['n']}")


if __name__ == "__main__":
    main()
