"""``vestige ls``: every method with its claim, access level and source."""

from __future__ import annotations

from typing import Any, cast

import vestige.audit
import vestige.audit.geometry
import vestige.audit.prompts
import vestige.erase
import vestige.erase.concept
import vestige.erase.recover
import vestige.rare.baselines
import vestige.rare.density
from vestige.audit.attack import Attack
from vestige.audit.geometry.detectors.detector import Detector
from vestige.audit.geometry.estimator import DataEstimator, ModelEstimator
from vestige.audit.geometry.generated_neighbourhood import GeneratedNeighbourhood
from vestige.audit.geometry.generator_spectrum import GeneratorSpectrum
from vestige.audit.prompts.detector import PromptDetector
from vestige.cli.display import show_table
from vestige.discover import methods
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.eraser import Eraser
from vestige.erase.recover.concept.attack import ConceptAttack
from vestige.erase.recover.recovery import Recovery
from vestige.rare.baselines.baseline import Baseline
from vestige.rare.density.density import Density
from vestige.rare.objective import DivRareGen, RareSearch
from vestige.record import Cell, Table
from vestige.zoo import MODELS, zoo_model
from vestige.zoo.pipelines import PIPELINES, zoo_pipeline


def show_methods() -> None:
    """Print attacks, estimators of dimension, detectors, erasers, ways to rare samples and shipped models."""
    rows: list[list[Cell]] = []
    for name, attack in methods(vestige.audit, cast("type[Attack[Any]]", Attack)).items():
        needs = attack.access.label + (", non-members" if attack.needs_others else "")
        rows.append(["audit", name, attack.claim, needs, attack.source])
    for name, estimator in methods(vestige.audit.geometry, ModelEstimator).items():
        rows.append(["geometry", name, estimator.claim, estimator.access.label, estimator.source])
    for gan in (GeneratorSpectrum, GeneratedNeighbourhood):
        rows.append(["geometry", gan.__name__, gan.claim, f"{gan.access.label} of a GAN", gan.source])
    for name, look in methods(vestige.audit.geometry, DataEstimator).items():
        rows.append(["geometry", name, look.claim, "data", look.source])
    for name, detector in methods(vestige.audit.geometry, Detector).items():
        rows.append(["geometry --detectors", name, detector.claim, detector.access.label, detector.source])
    for name, prompts in methods(vestige.audit.prompts, PromptDetector).items():
        rows.append(["audit --prompts", name, prompts.claim, prompts.access.label, prompts.source])
    for name, eraser in methods(vestige.erase, Eraser).items():
        rows.append(["erase", name, eraser.claim, "weights", eraser.source])
    for name, concepts in methods(vestige.erase.concept, ConceptEraser).items():
        rows.append(["erase --concept", name, concepts.claim, "weights", concepts.source])
    for name, recovery in methods(vestige.erase.recover, Recovery).items():
        needs = ("weights" if recovery.needs_weights else "scores") + (", unseen" if recovery.needs_unseen else "")
        rows.append(["verify --recover", name, recovery.claim, needs, recovery.source])
    for name, attempt in methods(vestige.erase.recover, ConceptAttack).items():
        rows.append(["increments attack", name, attempt.claim, "weights", attempt.source])
    for search in (RareSearch, DivRareGen):
        rows.append(["rare", search.__name__, search.claim, "weights of a generator", search.source])
    for name, baseline in methods(vestige.rare.baselines, Baseline).items():
        rows.append(["rare", name, baseline.claim, "a generator from latents", baseline.source])
    for name, density in methods(vestige.rare.density, Density).items():
        rows.append(["rare (density)", name, density.claim, "real images", density.source])
    columns = ["job", "method", "claim", "needs", "source"]
    show_table(Table(name="methods", title="Methods", columns=columns, rows=rows))
    shelf = [zoo_model(name) for name in MODELS] + [zoo_pipeline(name) for name in PIPELINES]
    models: list[list[Cell]] = [[each.card.name, each.card.claim] for each in shelf]
    show_table(Table(name="models", title="Models that ship with vestige", columns=["name", "claim"], rows=models))
