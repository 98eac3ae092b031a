"""A realistic record of an audit, and pictures to go with it, for looking at reports and for testing them."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from vestige.record import (
    Cost,
    Environment,
    Estimate,
    Figure,
    Match,
    NotDone,
    Record,
    Section,
    Series,
    Table,
    Verdict,
)
from vestige.report.evidence import Evidence, Picture, Strip

N_MATCHES = 9


def wilson(hits: int, n: int) -> tuple[float, float, float]:
    """Rate and its 95 % Wilson score interval."""
    z, p = 1.959964, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return p, max(0.0, centre - half), min(1.0, centre + half)


def rate(name: str, hits: int, n: int, note: str = "") -> Estimate:
    value, low, high = wilson(hits, n)
    return Estimate(name=name, value=value, low=low, high=high, n=n, note=note)


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def summary() -> list[Estimate]:
    return [
        rate("extraction/recall@copies=1", 2, 400),
        rate("extraction/recall@copies>=8", 61, 160),
        rate("extraction/recall@copies>=64", 58, 60),
        rate("extraction/precision", 121, 124),
        Estimate(name="extraction/distinct_images", value=121.0, n=4096, unit="images"),
        Estimate(name="extraction/nearest_distance", value=0.0312, low=0.0287, high=0.0344, n=121, unit="rms"),
        Estimate(name="membership/loss/auc", value=0.6127, low=0.581, high=0.644, n=1000),
        rate("membership/loss/tpr@fpr=0.01", 21, 500),
        Estimate(name="membership/PFAMI/auc", value=0.8342, low=0.809, high=0.858, n=1000),
        rate("membership/PFAMI/tpr@fpr=0.01", 118, 500),
        Estimate(name="membership/LiRA/auc", value=None, note="needs shadow models, which were not given"),
        Estimate(name="copying/authenticity", value=0.917, low=0.908, high=0.925, n=4096),
        Estimate(name="copying/C_T", value=-4.21, low=-5.3, high=-3.2, n=2000, unit="z", note="below 0: copying"),
        Estimate(name="geometry/FLIPD/members", value=38.4, low=36.9, high=40.1, n=250, unit="dimensions"),
        Estimate(name="geometry/FLIPD/others", value=61.7, low=60.2, high=63.5, n=250, unit="dimensions"),
        Estimate(name="quality/fid", value=7.93, low=7.61, high=8.3, n=4096),
        Estimate(name="quality/kid", value=0.00021, low=0.000071, high=0.00036, n=4096),
    ]


def roc(name: str, separation: float) -> Series:
    """ROC of two unit normals ``separation`` apart, with the band of 500 against 500 rows."""
    cut = np.linspace(-5, 5 + separation, 160)[::-1]
    fpr = np.array([0.5 * math.erfc(c / math.sqrt(2)) for c in cut])
    tpr = np.array([0.5 * math.erfc((c - separation) / math.sqrt(2)) for c in cut])
    half = 1.96 * np.sqrt(tpr * (1 - tpr) / 500)
    low, high = np.clip(tpr - half, 0, 1), np.clip(tpr + half, 0, 1)
    return Series(name=name, x=fpr.tolist(), y=tpr.tolist(), low=low.tolist(), high=high.tolist())


def recall_by_copies() -> Figure:
    places: list[float | str] = ["1", "2 to 7", "8 to 15", "16 to 31", "32 to 63", "64+"]
    methods = {
        "generate and match": [0.005, 0.03, 0.24, 0.55, 0.83, 0.967],
        "guided search": [0.02, 0.09, 0.4, 0.7, 0.91, 0.983],
    }
    n = [400, 200, 60, 40, 40, 60]
    series: list[Series] = []
    for name, rates in methods.items():
        lines = [wilson(round(p * k), k) for p, k in zip(rates, n, strict=True)]
        y, low, high = (list(v) for v in zip(*lines, strict=True))
        series.append(Series(name=name, x=places, y=list(y), low=list(low), high=list(high)))
    return Figure(
        name="recall_by_copies",
        title="Recall by number of copies in the training set",
        kind="bars",
        series=series,
        x_label="copies in the training set",
        y_label="share of images recovered",
        caption="Images that occur once are almost never recovered; with 32 copies or more nearly all are.",
    )


def membership_roc() -> Figure:
    return Figure(
        name="roc",
        title="Membership: ROC with 95 % bands",
        kind="line",
        series=[roc("PFAMI (probabilistic fluctuation)", 1.37), roc("SecMI", 0.9), roc("loss", 0.41)],
        x_label="false positive rate",
        y_label="true positive rate",
        diagonal=True,
        caption="500 members and 500 held-out rows from the same source.",
    )


def distance_histogram() -> Figure:
    edges = np.linspace(0, 0.4, 33)
    centres = (edges[:-1] + edges[1:]) / 2
    bulk = 820 * np.exp(-0.5 * ((centres - 0.21) / 0.042) ** 2)
    copied = 95 * np.exp(-0.5 * ((centres - 0.035) / 0.014) ** 2)
    held_out = 790 * np.exp(-0.5 * ((centres - 0.214) / 0.041) ** 2)
    return Figure(
        name="distances",
        title="Distance of each generation to its nearest row",
        kind="histogram",
        series=[
            Series(name="nearest training row", x=edges.tolist(), y=np.round(bulk + copied).tolist()),
            Series(name="nearest held-out row", x=edges.tolist(), y=np.round(held_out).tolist()),
        ],
        x_label="root mean squared distance",
        y_label="generations",
        thresholds=[("match below 0.08", 0.08), ("1st percentile, held out", 0.118)],
        caption="The hump on the left exists for training rows only: these generations are copies.",
    )


def dimension_points() -> Figure:
    x: list[float | str] = ["members, 64+ copies", "members, 1 copy", "held out"]
    return Figure(
        name="dimension",
        title="Local intrinsic dimension",
        kind="points",
        series=[
            Series(name="FLIPD", x=x, y=[21.3, 58.0, 61.7], low=[19.8, 56.1, 60.2], high=[22.9, 59.8, 63.5]),
            Series(name="normal bundle", x=x, y=[24.0, 60.5, None], low=[21.1, 57.0, None], high=[27.2, 64.1, None]),
        ],
        y_label="dimensions",
        caption="A memorized image sits on a piece of the model's manifold of lower dimension.",
    )


def matches() -> list[Match]:
    return [
        Match(
            row=digest(f"row {i}"),
            generation=37 * i + 4,
            distance=0.018 + 0.006 * i,
            calibrated=0.11 + 0.02 * i,
            copies=max(1, 128 >> i),
            picture=i,
        )
        for i in range(N_MATCHES)
    ]


def attacks_table() -> Table:
    return Table(
        name="attacks",
        title="Attacks side by side",
        columns=[
            "attack",
            "access",
            "AUC",
            "low",
            "high",
            "TPR at FPR 1 %",
            "evaluations per row",
            "seconds",
            "usable",
        ],
        rows=[
            ["loss", "losses", 0.6127, 0.581, 0.644, 0.042, 10, 41.2, True],
            ["SecMI", "scores", 0.7391, 0.708, 0.769, 0.118, 22, 96.0, True],
            ["PFAMI", "losses", 0.8342, 0.809, 0.858, 0.236, 110, 480.5, True],
            ["LiRA", "losses", None, None, None, None, None, None, False],
        ],
        caption="500 members, 500 held-out rows. Intervals by DeLong.",
    )


def sections() -> list[Section]:
    return [
        Section(
            name="extraction",
            title="Extraction",
            text=[
                "4,096 images were generated without a prompt and compared with all 5,000 training images. "
                "124 of them lie closer to a training image than any held-out comparison would explain.",
                "Recovery depends on duplication: the number of copies explains nearly all of it.",
            ],
            figures=[recall_by_copies(), distance_histogram()],
            matches=matches(),
        ),
        Section(
            name="membership",
            title="Membership inference",
            text=["Can an attacker tell which rows the model was trained on? Higher scores mean likelier members."],
            figures=[membership_roc()],
            tables=[attacks_table()],
        ),
        Section(
            name="geometry",
            title="Geometry",
            text=["Where memorization happens, the model's distribution is locally thinner."],
            figures=[dimension_points()],
        ),
    ]


def record(verdict: Verdict = Verdict.FINDING) -> Record:
    """The sample record; only the verdict can be chosen."""
    return Record(
        command="audit",
        title="Audit of digits-ddpm against its training set",
        created="2025-11-21T21:24:07Z",
        subject={"name": "digits-ddpm", "kind": "diffusers UNet2DModel, epsilon", "digest": digest("model")},
        access="scores",
        config={
            "data": {"members": "digits/members", "holdout": "digits/others", "resolution": [28, 28, 1]},
            "extraction": {"generations": 4096, "steps": 50, "threshold": 0.08},
            "membership": {"attacks": ["loss", "SecMI", "PFAMI"], "rows": 500, "draws": 10},
            "policy": {"extraction/recall@copies=1": {"at_most": 0.01}, "membership/PFAMI/auc": {"at_most": 0.7}},
        },
        digests={"model": digest("model"), "members": digest("members"), "holdout": digest("holdout")},
        seeds={"generate": 0, "membership": 17, "bootstrap": 5},
        environment=Environment(
            versions={"vestige": "0.1.0", "torch": "2.13.0", "diffusers": "0.36.0", "numpy": "2.3.5"},
            python="3.11.2",
            platform="Linux x86_64",
            device="cpu",
            threads=2,
        ),
        cost=Cost(seconds=1874.2, network_evaluations=412_600, peak_memory_bytes=2_147_483_648),
        verdict=verdict,
        reasons=[
            "membership/PFAMI/auc is 0.834 [0.809, 0.858]; the policy allows at most 0.7.",
            "58 of 60 training images with 64 copies or more were recovered from generations alone.",
        ],
        summary=summary(),
        sections=sections(),
        not_done=[
            NotDone(
                what="Likelihood ratio attack (LiRA)",
                reason="It needs shadow models trained with and without each row; none were given.",
                remedy="Pass a folder of shadow models with --shadows.",
            ),
            NotDone(
                what="Localizing memorized rows in the weights",
                reason="Access was granted up to scores, and this needs weights.",
                remedy="Grant --access weights.",
            ),
        ],
    )


def _image(rng: np.random.Generator, size: int = 28) -> npt.NDArray[np.float64]:
    """A smooth closed stroke, a little like a handwritten sign."""
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), axis=-1)
    turns = np.linspace(0, 1.6 * np.pi + rng.uniform(-0.6, 0.4), 90)
    a, b, c = rng.uniform(5, 9), rng.uniform(3, 8), rng.uniform(0, 2 * np.pi)
    stroke = np.stack([size / 2 + a * np.sin(turns + c), size / 2 + b * np.cos(rng.choice([1, 2]) * turns)], axis=-1)
    distance = np.linalg.norm(grid[:, :, None] - stroke, axis=-1).min(axis=-1)
    return np.clip(1.6 - 0.7 * distance, 0, 1)


def _bytes(images: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)[..., None]


def evidence(n_strip: int = 14) -> Evidence:
    """Pairs for every match of the sample, and a strip before and after an erasure."""
    rng = np.random.default_rng(3)
    pairs: dict[int, Picture] = {}
    for i in range(N_MATCHES):
        training = _image(rng)
        blurred = training + rng.normal(0, 0.03 + 0.01 * i, training.shape)
        pairs[i] = Picture(generated=_bytes(blurred), training=_bytes(training), label=f"members/{1000 + 7 * i}.png")
    before = np.stack([_image(rng) for _ in range(n_strip)])
    after = before.copy()
    after[::3] = np.stack([_image(rng) for _ in range(len(after[::3]))])
    strips = [
        Strip("Before", _bytes(before), "Seeds 0 to 13."),
        Strip("After erasure", _bytes(after), "The same seeds; every third image no longer shows the erased row."),
    ]
    return Evidence(pairs=pairs, strips={"extraction": strips})
