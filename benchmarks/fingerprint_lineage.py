"""Which of two models descend from one another: a family of tiny language models, all pairs, laundered and not.

pip install modeldna
python benchmarks/fingerprint_lineage.py --family DIR     # as vestige.zoo.train_family wrote it
python benchmarks/fingerprint_lineage.py --family DIR --text TEXT     # trains what is missing first

Two models are kin if at least half of their weights come from common roots, strangers if none do; pairs between are
left out. Every pair is scored as it is and with the whole laundering suite, composed, on its second model; a few pairs
of kin and of strangers also with each change of the suite alone. ``modeldna`` is the package of PyPI, run
as it is on the written folders in its full mode, with the probability of its verdict as score and 0 where it rules a
pair out. Scores are kept in the work folder, pair by pair, and not computed twice.

What strangers reach by chance, which our score needs, is taken from plain pairs of strangers that have nothing of the
main roots of the pair that is judged. Bounds of areas count pairs as if they were independent, which those that share a
model are not. Floors over all strangers are listed as well: they are what the package ships as its calibration.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import combinations, count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from table import RESULTS, Row, write

from vestige.fingerprint.baselines.awm_like import AwmLike
from vestige.fingerprint.baselines.parameter_cosine import ParameterCosine
from vestige.fingerprint.baselines.reef_like import ReefLike
from vestige.fingerprint.calibration import MEASURED, Floor
from vestige.fingerprint.card import Fingerprint, fingerprint
from vestige.fingerprint.compare import Judge, Lineage, Weight, weigh
from vestige.fingerprint.evidence.evidence import Finding
from vestige.fingerprint.evidence.huref import HuRef
from vestige.fingerprint.launder.extend_vocabulary import ExtendVocabulary
from vestige.fingerprint.launder.fold_gains import FoldGains
from vestige.fingerprint.launder.gain_shift import GainShift
from vestige.fingerprint.launder.head_permutation import HeadPermutation
from vestige.fingerprint.launder.launder import laundered
from vestige.fingerprint.launder.neuron_permutation import NeuronPermutation
from vestige.fingerprint.launder.neuron_scale import NeuronScale
from vestige.fingerprint.launder.query_key_basis import QueryKeyBasis
from vestige.fingerprint.launder.residual_permutation import ResidualPermutation
from vestige.fingerprint.launder.residual_rotation import ResidualRotation
from vestige.fingerprint.launder.residual_scale import ResidualScale
from vestige.fingerprint.launder.residual_signs import ResidualSigns
from vestige.fingerprint.launder.row_overwrite import RowOverwrite
from vestige.fingerprint.launder.value_basis import ValueBasis
from vestige.fingerprint.launder.vocabulary_permutation import VocabularyPermutation
from vestige.fingerprint.merge import merge_shares
from vestige.fingerprint.pair import Pair
from vestige.metrics.roc import auc
from vestige.models.transformer.memory import InMemoryTransformer
from vestige.models.transformer.open import open_transformer
from vestige.models.transformer.write import write_llama

SUITE = {
    "fold gains": (FoldGains(),),
    "shift gains": (GainShift(1.5),),
    "permute residual": (ResidualPermutation(),),
    "flip signs": (ResidualSigns(),),
    "rotate residual": (FoldGains(), ResidualRotation()),
    "scale residual": (ResidualScale(),),
    "permute heads": (HeadPermutation(),),
    "value bases": (ValueBasis(),),
    "query and key bases": (QueryKeyBasis(),),
    "permute neurons": (NeuronPermutation(),),
    "scale neurons": (NeuronScale(),),
    "permute vocabulary": (VocabularyPermutation(),),
    "extend vocabulary": (ExtendVocabulary(64),),
    "overwrite rows": (RowOverwrite(128),),
}
COMPOSED = tuple(step for steps in SUITE.values() for step in steps)
PLAIN, ALONE, ALL = "plain", "alone", "composed"
ORDER = PLAIN, ALL, ALONE
OURS, MODELDNA = "vestige", "modeldna"
BASELINES = {
    "as_published": HuRef(as_published=True),
    "AWM-like": AwmLike(),
    "REEF-like": ReefLike(prompts=32),
    "parameter cosine": ParameterCosine(),
}
EACH, EVERY = 3, {True: 1, False: 5}
"""Pairs that see each single change, among kin and among strangers, and which of them are taken."""
ROOTS = 10
"""Pairs of roots in the family: so many pairs of strangers are independent of each other."""
KIN = 0.5
"""Share of common roots from which two models are kin."""


@dataclass(frozen=True)
class Task:
    """One pair in one condition; ``change`` names the member of the suite, or nothing."""

    first: str
    second: str
    kin: bool
    condition: str
    change: str = ""

    @property
    def key(self) -> str:
        return "|".join((self.first, self.second, self.condition, self.change))


@dataclass(frozen=True)
class Family:
    """The folder of a family and which roots each member has."""

    folder: Path
    roots: dict[str, dict[str, float]]

    @staticmethod
    def read(folder: Path) -> Family:
        facts = json.loads((folder / "family.json").read_text(encoding="utf-8"))["members"]
        return Family(folder, {fact["name"]: fact["roots"] for fact in facts})

    def common(self, first: str, second: str) -> float:
        """Share of weights from common roots in [0, 1]."""
        ours, theirs = self.roots[first], self.roots[second]
        return sum(min(share, theirs.get(root, 0.0)) for root, share in ours.items())

    def main(self, name: str) -> frozenset[str]:
        """The roots that at least half of a member comes from."""
        return frozenset(root for root, share in self.roots[name].items() if share >= KIN)

    def tasks(self) -> Iterator[Task]:
        turns, changes = {True: count(), False: count()}, list(SUITE)
        for first, second in combinations(self.roots, 2):
            share = self.common(first, second)
            if 0 < share < KIN:
                continue
            kin = share >= KIN
            yield Task(first, second, kin, PLAIN)
            yield Task(first, second, kin, ALL)
            turn = next(turns[kin])
            if turn % EVERY[kin] == 0 and turn < EVERY[kin] * EACH * len(changes):
                yield Task(first, second, kin, ALONE, changes[turn // EVERY[kin] % len(changes)])


@dataclass(frozen=True, eq=False)
class Models:
    """Members as they are and laundered, with their cards; each change has noise of its own."""

    family: Family
    read: Callable[[str], InMemoryTransformer] = field(init=False)
    card: Callable[[str, str, str], tuple[InMemoryTransformer, Fingerprint]] = field(init=False)
    dna: Callable[[str, str, str], object] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", lru_cache(64)(self._read))
        object.__setattr__(self, "card", lru_cache(64)(self._card))
        object.__setattr__(self, "dna", lru_cache(None)(self._dna))

    def _read(self, name: str) -> InMemoryTransformer:
        return InMemoryTransformer.of(open_transformer(self.family.folder / name))

    def changed(self, name: str, condition: str, change: str) -> InMemoryTransformer:
        steps = {PLAIN: (), ALONE: SUITE.get(change, ()), ALL: COMPOSED}[condition]
        return laundered(self.read(name), steps, 1 + list(self.family.roots).index(name))

    def _card(self, name: str, condition: str, change: str) -> tuple[InMemoryTransformer, Fingerprint]:
        model = self.changed(name, condition, change)
        return model, fingerprint(model)

    def _dna(self, name: str, condition: str, change: str) -> object:
        from modeldna.fingerprint.extract import extract_fingerprint
        from modeldna.io.source import open_source

        with tempfile.TemporaryDirectory() as folder:
            write_llama(self.changed(name, condition, change), folder)
            return extract_fingerprint(open_source(folder), mode="full", model_id=f"{name}{condition}{change}")


def dna_score(first: object, second: object) -> float:
    """The probability that modeldna gives; 0 where it rules the pair out."""
    from modeldna.compare import compare_fingerprints
    from modeldna.verdict import judge

    (found,) = judge([(compare_fingerprints(second, first), "family")]).candidates
    return 0.0 if found.probability is None else float(found.probability)


def score(task: Task, models: Models) -> dict[str, object]:
    """Every method's score of one pair, and the verdict of ours."""
    (first, ours), (second, theirs) = (
        models.card(task.first, PLAIN, ""),
        models.card(task.second, task.condition, task.change),
    )
    pair = Pair(ours, theirs, (first, second))
    findings = [kind.measure(pair) for kind in Judge().evidence]
    scores: dict[str, float | None] = {finding.evidence: finding.value for finding in findings}
    deviations = {finding.evidence: finding.deviation for finding in findings}
    for name, method in BASELINES.items():
        scores[name] = method.measure(pair).value
    scores[MODELDNA] = dna_score(
        models.dna(task.first, PLAIN, ""), models.dna(task.second, task.condition, task.change)
    )
    return {"key": task.key, "kin": task.kin, "scores": scores, "deviations": deviations}


_MODELS: list[Models] = []
"""Those of this process, so that cards are made once in it."""


def prepare(family: Family) -> None:
    """Start a process."""
    _MODELS.append(Models(family))


def scores_of(tasks: list[Task]) -> list[dict[str, object]]:
    """Every pair of a group."""
    return [score(task, _MODELS[0]) for task in tasks]


def all_scores(family: Family, work: Path, workers: int) -> dict[str, dict]:
    """Every pair's scores by key; those in the work folder are taken from there."""
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "scores.jsonl"
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else []
    done = {line["key"]: line for line in map(json.loads, lines)}
    # All that needs one laundered model comes together.
    groups: dict[tuple[int, str], list[Task]] = {}
    for task in family.tasks():
        if task.key not in done:
            groups.setdefault((ORDER.index(task.condition), task.second), []).append(task)
    waiting = [groups[key] for key in sorted(groups)]
    with kept.open("a", encoding="utf-8") as file, get_context("spawn").Pool(workers, prepare, (family,)) as pool:
        for place, found in enumerate(pool.imap_unordered(scores_of, waiting), 1):
            for line in found:
                done[str(line["key"])] = line
                print(json.dumps(line), file=file, flush=True)
            print(f"{place}/{len(waiting)} groups", flush=True)
    return done


def strangers(family: Family, found: dict[str, dict], without: frozenset[str]) -> list[dict]:
    """Plain pairs of strangers that have no weights from these roots."""
    tasks = [task for task in family.tasks() if task.condition == PLAIN and not task.kin and task.key in found]
    apart = [t for t in tasks if not without & {*family.roots[t.first], *family.roots[t.second]}]
    return [found[task.key] for task in apart]


def floors(lines: list[dict]) -> tuple[tuple[str, Floor], ...]:
    """Mean and spread of every kind of evidence that these pairs have; they count as the pairs of roots of a family."""
    held: dict[str, list[float]] = {}
    for line in lines:
        for name in line["deviations"]:
            if line["scores"][name] is not None:
                held.setdefault(name, []).append(line["scores"][name])
    return tuple((name, Floor(float(np.mean(v)), float(np.std(v, ddof=1)), ROOTS)) for name, v in held.items())


def weighed(line: dict, judge: Judge) -> Weight:
    """What the judge makes of the findings on one pair."""
    named = line["deviations"].items()
    return weigh([Finding(name, line["scores"][name], deviation) for name, deviation in named], judge)


def judge_all(family: Family, found: dict[str, dict]) -> None:
    """Score and verdict of ours for every pair, by floors of pairs that share no root with it."""

    @cache
    def judge(without: frozenset[str]) -> Judge:
        lines = strangers(family, found, without)
        return Judge(calibration=replace(MEASURED, floors=floors(lines), source="the other roots"))

    for task in family.tasks():
        if task.key in found:
            line = found[task.key]
            answer = weighed(line, judge(family.main(task.first) | family.main(task.second)))
            line["verdict"], line["scores"][OURS] = answer.verdict, -math.log10(answer.p_value)


def _values(lines: list[dict], method: str, kin: bool) -> list[float]:
    """Scores of one method; a pair that it cannot tell apart counts as its least alike."""
    held = [line["scores"].get(method) for line in lines if line["kin"] is kin]
    return [-1.0 if value is None else value for value in held]


def rows_of(family: Family, found: dict[str, dict]) -> list[Row]:
    """The table: areas with their bounds, verdicts, and shares of merges."""
    judge_all(family, found)
    by: dict[str, list[dict]] = {}
    for task in family.tasks():
        if task.key in found:
            by.setdefault(task.condition, []).append(found[task.key])
    by["laundered"] = by[ALONE] + by[ALL]
    rows: list[Row] = []
    for condition, suffix in ((PLAIN, ""), ("laundered", "_laundered"), (ALONE, "_alone"), (ALL, "_composed")):
        lines = by[condition]
        mine = auc(_values(lines, OURS, True), _values(lines, OURS, False))
        for name in (*BASELINES, MODELDNA):
            other = auc(_values(lines, name, True), _values(lines, name, False))
            for what in ("value", "low", "high"):
                end = "" if what == "value" else f"_{what}"
                ours, reference = getattr(mine, what), getattr(other, what)
                rows.append(Row(f"lineage/auc{suffix}{end}", ours, reference, name, None, "AUC", len(lines)))
        for kind in (item.name for item in Judge().evidence):
            if any(line["scores"].get(kind) is not None for line in lines):
                area = auc(_values(lines, kind, True), _values(lines, kind, False)).value
                rows.append(Row(f"evidence/{kind}/auc{suffix}", area, None, "", None, "AUC", len(lines)))
        rows += _verdicts(lines, suffix)
    for name, floor in floors(strangers(family, found, frozenset())):
        rows.append(Row(f"floor/{name}/mean", floor.mean, None, "", None, "similarity", len(by[PLAIN])))
        rows.append(Row(f"floor/{name}/spread", floor.spread, None, "", None, "similarity", len(by[PLAIN])))
    return rows


def _verdicts(lines: list[dict], suffix: str) -> list[Row]:
    rows = []
    for kin, verdict, name in (
        (True, Lineage.SAME, "kin_found"),
        (True, Lineage.INDEPENDENT, "kin_missed"),
        (False, Lineage.SAME, "strangers_accused"),
        (False, Lineage.INDEPENDENT, "strangers_cleared"),
    ):
        held = [line["verdict"] is verdict for line in lines if line["kin"] is kin]
        rows.append(Row(f"verdict/{name}{suffix}", float(np.mean(held)), None, "", None, "share", len(held)))
    return rows


def merges(family: Family, models: Models) -> list[Row]:
    """Shares of merges whose shares are known, as they are and with everything laundered."""
    facts = json.loads((family.folder / "family.json").read_text(encoding="utf-8"))["members"]
    errors: dict[str, list[float]] = {PLAIN: [], ALL: []}
    for fact in facts:
        if fact["change"] != "Merge":
            continue
        for condition, held in errors.items():
            child = models.changed(fact["name"], condition, "")
            shares = merge_shares(child, [models.read(name) for name in fact["parents"]]).shares
            held += [abs(s.value - true) for s, true in zip(shares, fact["parents"].values(), strict=True)]
    return [
        Row(f"merge/share_error{suffix}", max(errors[condition]), None, "", None, "largest", len(errors[condition]))
        for condition, suffix in ((PLAIN, ""), (ALL, "_laundered"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", type=Path, required=True, help="folder of vestige.zoo.train_family")
    parser.add_argument("--text", type=Path, help="text to train members from that the folder does not hold yet")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if find_spec("modeldna") is None:
        parser.error("a peer is not installed: pip install modeldna")
    if given.text is not None:
        from vestige.zoo.train_family import train

        train(given.text, given.family)
    family = Family.read(given.family)
    found = all_scores(family, given.family / "scores", given.workers)
    rows = rows_of(family, found) + merges(family, Models(family))
    write("fingerprint_lineage", f"Lineage over {len(family.roots)} models", rows, given.out)


if __name__ == "__main__":
    main()
