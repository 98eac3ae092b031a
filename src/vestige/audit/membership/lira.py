"""Likelihood ratio attack with shadow models (LiRA, Carlini et al. 2022, arXiv 2112.03570)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.audit.attack import Attack, Outcome
from vestige.audit.membership.likelihood import LEAST_MODELS, Bools, Mode, each_in_turn, scores
from vestige.audit.membership.rows import Floats, Sides, answers, check, condition_name, others_of, unlabelled
from vestige.audit.membership.scoring import RATES, Method, judged
from vestige.audit.probe import Condition, Noised, told
from vestige.data.split import Split
from vestige.errors import ShapeMismatch, Unsupported
from vestige.execute import Context
from vestige.metrics.interval import estimate, mean_interval
from vestige.metrics.roc import auc, tpr_at_fpr
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser
from vestige.models.shadows import Shadows
from vestige.models.subject import Subject
from vestige.record import Estimate, NotDone

_LEAST_LOSS = 1e-9
"""Squared noise error a pixel below which float32 knows nothing."""

_SHARE = 0.9
"""Share of rows on each side that online scores need; the rest is then left out."""

_FEWEST_SHADOWS = 4


@dataclass(frozen=True, eq=False)
class ShadowLosses:
    """Log losses of the target [m] and [k], of the shadows [models, m + k], and where each image was trained on.

    ``inside`` and ``pooled`` are bool [models, m + k] and [m + k]: images outside the pool
    are outside every shadow.
    """

    sides: Sides
    members: Floats
    others: Floats
    shadows: Floats
    inside: Bools
    pooled: Bools
    told: str


@dataclass(frozen=True)
class LiRA(Attack[ShadowLosses]):
    """Each image is compared with itself: how would a model answer that had, or had not, seen it?

    With ``l = mean over times of log(mean over draws of ||eps - eps_hat(x_t, t)||^2 / pixels)`` and
    Gaussians of l over the shadow models trained with the image (in) and without it (out),
    the score is ``log N(l; in) - log N(l; out)`` (online) or ``(mean_out - l) / deviation_out``
    (offline). Target and shadows see the same noise under the same condition.

    Parameters
    ----------
    shadows : folder of shadow models, as `vestige shadow` writes it.
    times : noise levels, time 0 clean .. 1 noise.
    draws : noise draws a time.
    rows : at most this many members and as many others.
    mode : online needs two models with and two without the image for nine tenths of the rows
        of each side, and falls back to offline for all rows; auto also asks that online
        scores work among the shadows themselves (lower end of their AUC above one half).
    fix_variance : one variance for all images, pooled within them, instead of one each.
    calibrate : map the target's losses to the shadows' scale first, by a median regression over
        all images that knows nothing of membership.
    """

    access: ClassVar[Access] = Access.LOSSES
    claim: ClassVar[str] = "tells training images from others by the losses of models trained with and without each"
    source: ClassVar[str] = "Carlini et al. 2022, arXiv 2112.03570; on diffusion models 2023, arXiv 2301.13188"
    needs_others: ClassVar[bool] = True
    by_default: ClassVar[bool] = False

    shadows: str | None = None
    times: tuple[float, ...] = (0.1,)
    draws: int = 4
    rows: int = 2000
    mode: Mode = Mode.AUTO
    fix_variance: bool = True
    calibrate: bool = True

    def __post_init__(self) -> None:
        check(rows=self.rows, draws=self.draws, times=self.times)

    def refusal(self, subject: Subject, split: Split) -> NotDone | None:
        """As every attack, and shadow models must be given."""
        name = type(self).__name__
        missing = super().refusal(subject, split) or unlabelled(name, self.claim, subject, split)
        if missing is None and not self.shadows:
            missing = NotDone(
                what=f"{name}: {self.claim}",
                reason="it needs shadow models, and none were given.",
                remedy="train them with `vestige shadow MODEL --data POOL --out FOLDER`, then set shadows=FOLDER.",
            )
        return missing

    def collect(self, subject: Subject, split: Split, context: Context) -> ShadowLosses:
        """Losses of the target and of every shadow on the same rows with the same noise, all cached.

        Raises
        ------
        NotFound, CorruptFile : the folder of shadows cannot be read.
        Unsupported : fewer than two shadows, or they cannot be asked under the target's condition.
        ShapeMismatch : the shadows make images of another shape.
        """
        denoiser = subject.opened(type(self).__name__)
        shadows = Shadows.open(self.shadows or "")
        if len(shadows) < LEAST_MODELS:
            raise Unsupported(
                f"{self.shadows} holds {len(shadows)} finished shadow model.",
                expected="at least 2, better 16.",
                remedy="wait until more are trained.",
            )
        sides = Sides.of(split, self.rows, context.seed)
        ids = [*(split.members.ids[i] for i in sides.members), *(others_of(split).ids[i] for i in sides.others)]
        condition = Condition(told(denoiser, split.members, Condition.OWN).replace("nothing", "null"))
        rows: list[Floats] = []
        for model in range(len(shadows)):
            shadow = shadows.denoiser(model)
            _check_fits(shadow, denoiser, condition, shadows.names[model])
            label = f"shadow {model + 1} of {len(shadows)}"
            rows.append(np.concatenate(self._log_losses(label, shadow, condition, sides, split, context)))
        inside, outside = self._log_losses("LiRA, target", denoiser, condition, sides, split, context)
        pool = set(shadows.ids)
        return ShadowLosses(
            sides,
            inside,
            outside,
            np.array(rows),
            shadows.inside_of(ids),
            np.array([identity in pool for identity in ids]),
            condition_name(condition, denoiser, split),
        )

    def _log_losses(
        self, label: str, model: Denoiser, condition: Condition, sides: Sides, split: Split, context: Context
    ) -> tuple[Floats, Floats]:
        recipes = [Noised(time, draw, condition) for draw in range(self.draws) for time in self.times]
        found: list[Floats] = []
        for part in answers(label, model, recipes, sides.images(split), context):
            losses = part[..., 0].reshape(len(part), self.draws, len(self.times)).mean(1)
            found.append(np.log(np.maximum(losses, _LEAST_LOSS)).mean(1))
        return found[0], found[1]

    def score(self, collected: ShadowLosses, split: Split) -> Outcome:
        """Exact ROC, AUC, TPR at low FPR, control, by duplicate count; and the method's power among the shadows."""
        mode, why = self._mode(collected)
        target = np.concatenate([collected.members, collected.others])
        found = scores(
            target,
            collected.shadows,
            collected.inside,
            mode,
            fix_variance=self.fix_variance,
            calibrate=self.calibrate,
        )
        count, models = len(collected.members), len(collected.shadows)
        inside, outside = found[:count], found[count:]
        left_out = int(np.isnan(found).sum())
        text = [
            f"{count:,} members and {len(outside):,} non-members under {models} shadow models, told "
            f"{collected.told}, {self.draws} noise draws at t = {', '.join(f'{t:g}' for t in self.times)}. {why}",
            f"{int(collected.pooled[:count].sum()):,} of the members and {int(collected.pooled[count:].sum()):,} of "
            "the non-members belong to the shadows' pool; the rest was outside every shadow.",
        ]
        if left_out:
            text.append(f"{left_out:,} rows had too few shadow models with or without them and were left out.")
        lines, words = self._power(collected, mode)
        return judged(
            Method(
                "lira",
                "Membership by likelihood ratio over shadow models (LiRA)",
                f"LiRA, {mode.value}",
                (1 + models) * self.draws * len(self.times),
            ),
            collected.sides,
            inside,
            outside,
            split,
            text=[*text, words],
            lines=lines,
        )

    def _mode(self, collected: ShadowLosses) -> tuple[Mode, str]:
        """The mode of all rows: a mode that depended on the row could itself tell members from others."""
        offline = "Scores are offline: every image is compared with the shadows that never saw it"
        online = "Scores are online: every image is compared with the shadows with and without it."
        if Mode(self.mode) is Mode.OFFLINE:
            return Mode.OFFLINE, offline + "."
        inside, count = collected.inside.sum(0), len(collected.members)
        enough = (inside >= LEAST_MODELS) & (len(collected.inside) - inside >= LEAST_MODELS)
        if min(enough[:count].mean(), enough[count:].mean()) < _SHARE:
            return Mode.OFFLINE, (
                f"{offline}. Online scores would need two shadows with and two without for nine tenths of each side, "
                f"and {enough[:count].mean():.0%} of the members and {enough[count:].mean():.0%} of the non-members "
                "have them."
            )
        if Mode(self.mode) is Mode.AUTO:
            area = self._power(collected, Mode.ONLINE)[0][0]
            if (area.low or 0.0) <= 0.5:
                return Mode.OFFLINE, (
                    f"{offline}. The shadows keep too little of their own halves to show what a model with the image "
                    "would answer: online scores cannot tell their members from the rest."
                )
        return Mode.ONLINE, online

    def _power(self, collected: ShadowLosses, mode: Mode) -> tuple[list[Estimate], str]:
        """AUC and TPR with every shadow in turn as the target of the others, where the truth is known exactly."""
        names = ["lira/pool_auc", *(f"lira/pool_tpr@fpr={fpr:g}" for fpr in RATES)]
        shadows, inside = collected.shadows[:, collected.pooled], collected.inside[:, collected.pooled]
        turns: list[tuple[Floats, Bools]] = []
        if len(shadows) >= _FEWEST_SHADOWS:
            found = each_in_turn(shadows, inside, mode, fix_variance=self.fix_variance, calibrate=self.calibrate)
            turns = [(values, truth) for values, truth in found if truth.any() and not truth.all()]
        if not turns:
            note = f"needs {_FEWEST_SHADOWS} shadow models and rows of their pool"
            empty = [Estimate(name=name, value=None, n=0, note=note) for name in names]
            return empty, "The power of the method among the shadows themselves could not be measured."
        note = "each shadow in turn as the target of the others; interval over models"
        areas = [auc(values[truth], values[~truth]).value for values, truth in turns]
        mean = mean_interval(areas, within=(0.0, 1.0))
        lines = [estimate(names[0], mean, "probability", note)]
        for name, fpr in zip(names[1:], RATES, strict=True):
            rates = [tpr_at_fpr(v[t], v[~t], fpr) for v, t in turns]
            few = "" if all(rate.enough_negatives for rate in rates) else "; too few non-members to trust this rate"
            share = mean_interval([rate.interval.value for rate in rates], within=(0.0, 1.0))
            lines.append(estimate(name, share, "share of members", note + few))
        words = (
            f"With each shadow in turn as the target, where the truth is known, the attack reaches an AUC of "
            f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}] ({mean.n} models). That is its power against models "
            "trained as the shadows were; the target may keep more or less."
        )
        return lines, words


def _check_fits(shadow: Denoiser, target: Denoiser, condition: Condition, name: str) -> None:
    if shadow.shape != target.shape:
        raise ShapeMismatch(
            f"Shadow model {name} makes images of shape {shadow.shape}.",
            expected=f"{target.shape}, as the target.",
            remedy="train shadows on images of the target's size.",
        )
    knows = (
        shadow.classes > 0 if condition is Condition.OWN else not shadow.classes or shadow.null_condition is not None
    )
    if not knows:
        wanted = "the image's label" if condition is Condition.OWN else "no label"
        raise Unsupported(
            f"Shadow model {name} cannot be asked with {wanted}, as the target is.",
            expected="shadows trained with the same kind of labels as the target.",
            remedy="train shadows on labelled images if and only if the target was, dropping labels if it has a null "
            "condition.",
        )
