from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.audit.membership.likelihood import Mode
from vestige.audit.membership.lira import LiRA
from vestige.data.images import ImageSet
from vestige.data.split import split
from vestige.errors import NeedsAccess, NotFound, ShapeMismatch, Unsupported
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.shadows import Shadows
from vestige.models.subject import Subject

MODELS = 6


class Folder:
    """Stands where `Shadows.open` looks: memorizers of random halves of a pool."""

    def __init__(self, pool, models=MODELS, labels=None, null=None):
        half = np.tile([True, False], (len(pool), models // 2))
        self.inside = np.random.default_rng(0).permuted(half, axis=1).T
        self.pool, self.ids, self.null = pool, pool.ids, null
        self.names = tuple(f"{i:03d}" for i in range(models))
        self.models = [self._model(pool, row, labels) for row in self.inside]

    def _model(self, pool, row, labels):
        import torch

        chosen = None if labels is None else torch.from_numpy(labels[row])
        model = EmpiricalDenoiser(pool.take(np.flatnonzero(row)).floats(), labels=chosen)
        model.null_condition = self.null
        return model

    def __len__(self):
        return len(self.names)

    def denoiser(self, model):
        return self.models[model]

    def inside_of(self, ids):
        return Shadows.inside_of(self, ids)

    @property
    def evaluations(self):
        return sum(model.evaluations for model in self.models)


def join(one, two):
    return ImageSet(np.concatenate([one.pixels, two.pixels]))


@pytest.fixture
def who(images):
    return split(images(1, 40), images(2, 40))


@pytest.fixture
def given(monkeypatch):
    def use(folder):
        monkeypatch.setattr(Shadows, "open", staticmethod(lambda path: folder))
        return folder

    return use


def subject(train):
    return Subject.of_denoiser("target", EmpiricalDenoiser(train.floats()), DDIM())


def line(outcome, name):
    return next(part for part in outcome.summary if part.name == name)


def test_without_shadows_it_refuses_and_names_the_command(who, context):
    refusal = LiRA().refusal(subject(who.members), who)
    assert refusal is not None
    assert "vestige shadow" in refusal.remedy
    assert "shadows=" in refusal.remedy
    with pytest.raises(NeedsAccess, match="vestige shadow"):
        LiRA().run(subject(who.members), who, context)


def test_a_folder_without_shadows_is_named(who, context, tmp_path):
    with pytest.raises(NotFound, match="no-such"):
        LiRA(shadows=str(tmp_path / "no-such")).run(subject(who.members), who, context)


@pytest.mark.parametrize("mode", Mode)
def test_members_and_the_power_among_shadows_are_found(who, context, given, mode):
    folder = given(Folder(join(who.members, who.others)))
    attack = LiRA(shadows="given", mode=mode, times=(0.3,))
    outcome = attack.run(subject(who.members), who, context)
    assert line(outcome, "lira/auc").value > 0.95
    power = line(outcome, "lira/pool_auc")
    assert power.n == MODELS
    assert power.value > 0.9
    assert power.low <= power.value <= power.high
    assert line(outcome, "lira/evaluations").value == 4 * (1 + MODELS)
    assert folder.evaluations == 4 * MODELS * 80
    used = Mode.OFFLINE if mode is Mode.OFFLINE else Mode.ONLINE
    assert outcome.section.figures[0].series[0].name == f"LiRA, {used.value}"


def test_the_table_is_that_of_the_denoising_loss(who, context, given):
    folder = given(Folder(join(who.members, who.others)))
    target = subject(who.members)
    DenoisingLoss().run(target, who, context)
    assert target.evaluations == 320
    LiRA(shadows="given").run(target, who, context)
    assert target.evaluations == 320
    LiRA(shadows="given", mode=Mode.OFFLINE, fix_variance=False).run(target, who, context)
    assert (target.evaluations, folder.evaluations) == (320, MODELS * 320)


def test_images_outside_the_pool_make_every_score_offline(who, context, given):
    given(Folder(who.members))  # non-members are outside every shadow, and that alone must not betray them
    outcome = LiRA(shadows="given").run(subject(who.members), who, context)
    assert outcome.section.figures[0].series[0].name == "LiRA, offline"
    assert any("0% of the non-members" in words for words in outcome.section.text)
    assert not np.isnan(outcome.other_scores).any()


def test_a_target_that_saw_neither_side_is_at_chance(images, context, given):
    who = split(images(1, 120), images(2, 120))
    given(Folder(join(who.members, who.others)))
    outcome = LiRA(shadows="given").run(subject(images(9, 60)), who, context)
    area = line(outcome, "lira/auc")
    assert area.low - 0.05 < 0.5 < area.high + 0.05


def test_shadows_that_keep_nothing_are_asked_offline(who, context, given, images):
    folder = given(Folder(join(who.members, who.others)))
    folder.models = [EmpiricalDenoiser(images(100 + i, 30).floats()) for i in range(MODELS)]
    for mode, used in ((Mode.AUTO, "offline"), (Mode.ONLINE, "online")):
        outcome = LiRA(shadows="given", mode=mode).run(subject(who.members), who, context)
        assert outcome.section.figures[0].series[0].name == f"LiRA, {used}"
        assert any("keep too little" in words for words in outcome.section.text) == (mode is Mode.AUTO)


def test_a_lone_row_without_models_is_left_out(who, context, given):
    folder = given(Folder(join(who.members, who.others)))
    folder.inside[:, 3] = False
    outcome = LiRA(shadows="given").run(subject(who.members), who, context)
    assert np.flatnonzero(np.isnan(outcome.member_scores)).tolist() == [3]
    assert any("1 rows" in words for words in outcome.section.text)


def test_shadows_are_told_what_the_target_is_told(images, context, given):
    import torch

    members, others = images(1, 30, labels=True), images(2, 30, labels=True)
    who = split(members, others)
    labels = np.concatenate([members.labels, others.labels])
    target = EmpiricalDenoiser(members.floats(), labels=torch.from_numpy(members.labels))
    conditional = Subject.of_denoiser("target", target, DDIM())
    given(Folder(join(members, others)))
    with pytest.raises(Unsupported, match="with the image's label"):
        LiRA(shadows="given").run(conditional, who, context)
    given(Folder(join(members, others), labels=labels))
    assert LiRA(shadows="given").run(conditional, who, context).summary[0].value > 0.9
    # A target without classes is told nothing, and so are the shadows; those without a null condition cannot be.
    with pytest.raises(Unsupported, match="with no label"):
        LiRA(shadows="given").run(subject(members), who, context)
    given(Folder(join(members, others), labels=labels, null=2))
    assert LiRA(shadows="given").run(subject(members), who, context).summary[0].value > 0.9


def test_shadows_of_another_shape_or_too_few_are_refused(who, context, given):
    wide = ImageSet(np.random.default_rng(0).integers(0, 256, (20, 1, 6, 6), dtype=np.uint8))
    given(Folder(wide))
    with pytest.raises(ShapeMismatch, match="000"):
        LiRA(shadows="given").run(subject(who.members), who, context)
    few = Folder(join(who.members, who.others), models=2)
    few.names, few.inside = few.names[:1], few.inside[:1]
    given(few)
    with pytest.raises(Unsupported, match="1 finished"):
        LiRA(shadows="given").run(subject(who.members), who, context)


def test_settings_decide_the_mode_by_value():
    assert LiRA(mode=Mode("offline")) == dataclasses.replace(LiRA(), mode=Mode.OFFLINE)
