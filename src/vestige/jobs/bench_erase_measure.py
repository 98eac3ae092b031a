"""What a comparison of erasures measures of each model: what is forgotten, and what is kept."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from vestige.audit.errors import error_table
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter, Generations
from vestige.audit.geometry.dsm import dsm_dimension
from vestige.audit.membership.rows import choose
from vestige.data.images import ImageSet
from vestige.data.split import Split, duplicate_groups
from vestige.digest import digest_json
from vestige.execute import Context
from vestige.features.extractor import Classifier, FeatureExtractor
from vestige.jobs.quality import MOST, NEIGHBOURS, fewest
from vestige.jobs.resolve import Loading
from vestige.jobs.traces import Probe
from vestige.metrics.classes import accuracy, class_scores
from vestige.metrics.coverage import Balls, density_coverage, precision_recall
from vestige.metrics.frechet import Gaussian, frechet_interval, kernel_distance
from vestige.metrics.interval import Interval, clopper_pearson, mean_interval, ratio_interval
from vestige.metrics.paired_distance import feature_distance, pixel_distance, relative_distance
from vestige.metrics.roc import auc, either_way
from vestige.models.denoiser import Denoiser
from vestige.store import write_text

Floats = npt.NDArray[np.float64]
Measured = dict[str, Interval]
"""By name; a name that is absent could not be measured."""

COVERAGE_NEIGHBOURS = 5
"""Of coverage, as in Naeem et al. 2020."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What every model is measured against, the same for all.

    Parameters
    ----------
    base : the original model.
    who, rows : the data, and the members that are forgotten.
    features : what quality is measured in; class names too where it is a classifier.
    generations : images sampled of each model, from the same noise.
    """

    base: Denoiser
    who: Split
    rows: npt.NDArray[np.int64]
    features: FeatureExtractor
    loading: Loading
    generations: int
    probe: Probe
    context: Context

    @cached_property
    def kept(self) -> npt.NDArray[np.int64]:
        """Members that are not forgotten."""
        return np.setdiff1d(np.arange(len(self.who.members)), self.rows)

    @cached_property
    def forgotten(self) -> ImageSet:
        """The forgotten images."""
        return self.who.members.take(self.rows)

    @cached_property
    def forgotten_class(self) -> int | None:
        """The label of all forgotten images, if no retained one has it and the model knows it."""
        return self.who.whole_class(self.rows) if self.base.classes else None

    @cached_property
    def unseen(self) -> ImageSet | None:
        """Non-members of the forgotten images' classes, as many as the probe looks at; None if fewer than two."""
        others, labels = self.who.others, self.forgotten.labels
        if others is None:
            return None
        like = np.arange(len(others))
        if others.labels is not None and labels is not None:
            like = np.flatnonzero(np.isin(others.labels, labels))
        chosen = like[choose(len(like), self.probe.rows, self.context.seed)]
        return others.take(chosen) if len(chosen) > 1 else None

    @cached_property
    def retained(self) -> ImageSet:
        """Retained images whose denoising loss is compared."""
        return self.who.members.take(self.kept[choose(len(self.kept), self.probe.rows, self.context.seed)])

    @cached_property
    def retained_features(self) -> Floats:
        """Features of the distinct retained images, at most ``MOST``."""
        chosen = self.kept[choose(len(self.kept), MOST, self.context.seed)]
        return self.features.features(self.who.members.pixels[chosen])

    @cached_property
    def original(self) -> Generations:
        """Generations of the original model."""
        return self.drawn(self.base)

    def drawn(self, model: Denoiser) -> Generations:
        """Generations of a model and the search of members among them, cached."""
        subject = self.loading.subject("model", model)
        return GenerateAndFilter(self.generations).collect(subject, replace(self.who, others=None), self.context)

    def key(self, model: Denoiser) -> dict[str, object]:
        """Plain values that determine what is measured of a model."""
        parts = self.features.digest, self.loading.guidance, self.generations, self.context.seed
        settings = {"sampler": self.loading.sampler.key(), "probe": self.probe.settings(), "parts": list(parts)}
        rows = self.rows.tolist()
        return {"model": model.digest, "base": self.base.digest, "data": self.who.digest, "rows": rows, **settings}

    def errors(self, model: Denoiser, images: ImageSet, times: tuple[float, ...], label: str) -> Floats:
        """Mean summed squared noise error of each image [n]."""
        return dsm_dimension(error_table(model, images, times, self.probe.draws, self.context, label=label))


def measure(ground: Ground, model: Denoiser) -> Measured:
    """All quantities of one model; what was measured before is read from the store."""
    path = ground.context.store.root / f"measured-{digest_json(ground.key(model))[:24]}.json"
    if path.exists():
        return {name: Interval(*line) for name, line in json.loads(path.read_text()).items()}
    made = ground.drawn(model)
    found = {**_traces(ground, model), **_outputs(ground, made), **_quality(ground, made), **_weights(ground, model)}
    lines = {name: [v.value, v.low, v.high, v.n] for name, v in found.items()}
    write_text(path, json.dumps(lines, indent=1) + "\n")
    return found


def _traces(ground: Ground, model: Denoiser) -> Measured:
    """Denoising errors of forgotten, unseen and retained images."""
    gone, probe, pixels = ground.forgotten, ground.probe, math.prod(model.shape)
    residue = ground.errors(model, gone, probe.residue_times, "residue of the forgotten")
    found = {"forgetting/residue": mean_interval(residue)}
    groups = duplicate_groups(ground.who.copies[ground.rows])
    if len(groups) > 1:
        found |= {f"forgetting/residue@copies={name}": mean_interval(residue[mask]) for name, mask in groups}
    loss = ground.errors(model, gone, probe.retain_times, "loss of the forgotten")
    found["forgetting/loss"] = mean_interval(loss / pixels)
    if ground.unseen is not None:
        outside = ground.errors(model, ground.unseen, probe.residue_times, "residue of the unseen")
        found["forgetting/residue_unseen"] = mean_interval(outside)
        if len(residue) > 1:
            found["forgetting/membership_auc"] = auc(-residue, -outside)
            found["forgetting/membership"] = either_way(found["forgetting/membership_auc"])
    losses = [ground.errors(m, ground.retained, probe.retain_times, "retained") for m in (model, ground.base)]
    found["retention/loss_ratio"] = ratio_interval(losses[0], losses[1], seed=ground.context.seed)
    return found


def _outputs(ground: Ground, made: Generations) -> Measured:
    """What of the forgotten the generations still show."""
    n = len(ground.rows)
    came = len(np.intersect1d(made.members.found(GenerateAndFilter().delta), ground.rows))
    share = clopper_pearson(came, n)
    found = {"forgetting/extracted": Interval(float(came), n * share.low, n * share.high, n)}
    target, judge = ground.forgotten_class, ground.features
    if target is None or made.condition is None or not isinstance(judge, Classifier):
        return found
    asked = made.pixels[made.condition == target]
    if len(asked):
        scores = class_scores(judge.probabilities(asked), target)
        found["forgetting/class_probability"] = scores.probability
        found["forgetting/class_accuracy"] = scores.accuracy
        found["forgetting/class_entropy"] = scores.entropy
    return found


def _quality(ground: Ground, made: Generations) -> Measured:
    """Generations of the retained classes against retained images and against the original model's."""
    labels, condition = ground.who.members.labels, made.condition
    mask = np.ones(len(made.pixels), dtype=bool)
    if condition is not None and labels is not None:
        mask = np.isin(condition, labels[ground.kept])
    pixels, before = made.pixels[mask], ground.original.pixels[mask]
    if not len(pixels):
        return {}
    x, y = ground.features.features(pixels), ground.features.features(before)
    found = {
        "retention/pixel_distance": mean_interval(pixel_distance(before, pixels), within=(0.0, 1.0)),
        "retention/feature_distance": mean_interval(feature_distance(y, x), within=(0.0, 4.0)),
    }
    if isinstance(ground.features, Classifier) and condition is not None and labels is not None:
        likely, asked = ground.features.probabilities(pixels), condition[mask]
        found["retention/class_accuracy"] = accuracy(likely, asked)
        for label in np.unique(asked).tolist():
            name = f"retention/class_accuracy@class={label}"
            found[name] = accuracy(likely[asked == label], asked[asked == label])
    return {**found, **_distances(ground, x, y)}


def _distances(ground: Ground, made: Floats, before: Floats) -> Measured:
    """Distances between distributions of features, where there are enough rows for them."""
    kept, seed = ground.retained_features, ground.context.seed
    if min(len(made), len(kept)) < fewest(made.shape[1]):
        return {}
    part, half = made[choose(len(made), MOST, seed)], len(made) // 2
    both = precision_recall(Balls.around(part, NEIGHBOURS), Balls.around(kept, NEIGHBOURS))
    return {
        "retention/frechet_data": frechet_interval(made, Gaussian.fit(kept), seed=seed),
        "retention/frechet_original": frechet_interval(made, Gaussian.fit(before), seed=seed),
        "retention/kernel_data": kernel_distance(made, kept),
        # Images from the same noise are not independent, which the unbiased estimate needs: other rows on each side.
        "retention/kernel_original": kernel_distance(made[:half], before[half:]),
        "retention/precision": both.precision,
        "retention/recall": both.recall,
        "retention/coverage": density_coverage(part, Balls.around(kept, COVERAGE_NEIGHBOURS)).coverage,
    }


def _weights(ground: Ground, model: Denoiser) -> Measured:
    """How far the weights lie from the original's, relative to these; nothing for another architecture."""
    before, after = (
        {name: value for name, value in m.module.state_dict().items() if value.is_floating_point()}
        for m in (ground.base, model)
    )
    if before.keys() != after.keys() or any(before[k].shape != after[k].shape for k in before):
        return {}
    with torch.no_grad():
        change = math.sqrt(sum(float((after[k].double() - before[k].double()).square().sum()) for k in before))
        norm = math.sqrt(sum(float(v.double().square().sum()) for v in before.values()))
    value = relative_distance(change, norm)
    return {"retention/weight_distance": Interval(value, value, value, sum(v.numel() for v in before.values()))}
