from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.prompts.attention_entropy import AttentionEntropy
from vestige.audit.prompts.first_guidance_norm import FirstGuidanceNorm
from vestige.audit.prompts.late_attention_entropy import LateAttentionEntropy
from vestige.audit.prompts.mean_guidance_norm import MeanGuidanceNorm
from vestige.audit.prompts.sample_score_norm import SampleScoreNorm
from vestige.cli.main import app
from vestige.data.images import ImageSet
from vestige.data.prompts import PromptSet, load_prompts
from vestige.errors import CorruptFile, EmptySet, InvalidInput, NotFound
from vestige.jobs.prompts import audit_prompts, zoo_pictures
from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.models.prompted import PromptedGenerator
from vestige.models.sampler import DDIM
from vestige.zoo.pictures import memorized_picture
from vestige.zoo.planted import Kind, special_captions

TEXTS = tuple(f"a {colour} {digit}" for colour in ("red", "blue") for digit in ("one", "two", "three", "four", "five"))
DRAWING = Drawing(DDIM(steps=2, clip=False), guidance=3.0)
CHEAP = [
    FirstGuidanceNorm(draws=1),
    AttentionEntropy(draws=1),
    LateAttentionEntropy(draws=1, steps=2, last=1),
    SampleScoreNorm(draws=1, steps=2),
]


def prompts(known=None):
    kinds = None if known is None else ("often",) * 6 + ("rarely",) * 4
    return PromptSet(TEXTS, None if known is None else np.array(known), kinds=kinds)


def own_pictures(model, rows):
    """What the model draws itself: as training images they are found again, pixel by pixel."""
    return ImageSet(PromptedGenerator(model, TEXTS, DRAWING).sample(np.array(rows), 0))


def test_every_detector_asks_a_pipeline_and_the_truth_judges_them(model, tmp_path):
    known = [True] * 5 + [False] * 5
    run = audit_prompts(model, prompts(known), out=tmp_path, detectors=CHEAP)
    for detector in CHEAP:
        name = f"prompts/{type(detector).__name__}"
        line = run.record.estimate(f"{name}/auc")
        assert line.n == 10
        assert line.low <= line.value <= line.high
        assert run.record.estimate(f"{name}/auc_control").value is not None
        (kinds,) = (table for part in run.record.sections for table in part.tables if table.name == "kinds")
        assert kinds.columns == ["detector", "often"]  # all five; none of the other kind is memorized
        told = dict(kinds.rows)[type(detector).__name__]
        assert told == f"{line.value:.3f} [{line.low:.3f}, {line.high:.3f}]"
        assert "false positives" in run.record.estimate(f"{name}/tpr@fpr=0.01").note
        assert run.record.estimate(f"{name}/forwards").value == detector.forwards_per_prompt
    expected = 10 * sum(detector.forwards_per_prompt for detector in CHEAP)
    assert run.record.cost.network_evaluations == expected
    assert run.record.verdict.value == "inconclusive"
    lines = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines] == list(TEXTS)
    assert [line["memorized"] for line in lines] == known
    again = audit_prompts(model, prompts(known), out=tmp_path, detectors=CHEAP)
    assert again.record.cost.network_evaluations == 0
    assert (
        again.record.estimate("prompts/FirstGuidanceNorm/auc").value
        == run.record.estimate("prompts/FirstGuidanceNorm/auc").value
    )


def test_prompts_bring_out_the_pictures_that_they_draw(model, tmp_path):
    data = own_pictures(model, [3, 13, 7])  # twice prompt 3, once prompt 7
    extraction = GenerateAndFilter(generations=20, delta=0.001, clique_size=2, neighbours=1)
    run = audit_prompts(
        model, prompts(), data, out=tmp_path, detectors=CHEAP[:1], extraction=extraction, drawing=DRAWING
    )
    lines = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert lines[3]["pictures"] == 2
    assert lines[3]["distance"] == lines[7]["distance"] == 0
    assert {lines[3]["nearest"], lines[7]["nearest"]} <= set(data.ids)
    assert lines[3]["memorized"]
    assert run.record.estimate("extraction/near_exact").value == 3
    names = [section.name for section in run.record.sections]
    assert names == ["data", "extraction", "brought", "prompts"]
    cliques = next(t for s in run.record.sections for t in s.tables if t.name == "cliques")
    assert all(row[3] is not None for row in cliques.rows)


@pytest.mark.parametrize("layout", ["sdxl", "sd3"])
def test_other_layouts_are_asked_what_they_can_answer(layout, small_pipelines, tmp_path):
    other = TextToImage(small_pipelines.LAYOUTS[layout](tmp_path))
    cheap = [FirstGuidanceNorm(draws=1), MeanGuidanceNorm(draws=1, steps=2), AttentionEntropy(draws=1)]
    texts = PromptSet(("a red one", "seven"))
    run = audit_prompts(other, texts, out=tmp_path / "run", detectors=cheap, drawing=DRAWING, mitigate=1)
    refused = ["AttentionEntropy"] if layout == "sd3" else []  # its text and pixels look at one another in one layer
    assert [part.what.partition(":")[0] for part in run.record.not_done] == refused
    lines = [json.loads(line) for line in (tmp_path / "run" / "prompts.jsonl").read_text().splitlines()]
    assert all(line["FirstGuidanceNorm"] > 0 and line["MeanGuidanceNorm"] > 0 for line in lines)
    assert run.record.estimate("mitigation/EmbeddingOptimisation/closeness").value < 1


def test_a_zoo_pipeline_brings_the_pictures_of_its_special_captions(monkeypatch):
    few = [one for one in special_captions() if one.copies == 4][:2]
    few += [one for one in special_captions() if one.kind is Kind.LOOKALIKE and one.copies == 4][:1]
    monkeypatch.setattr("vestige.jobs.prompts.special_captions", lambda: few)
    monkeypatch.setattr("vestige.jobs.prompts.HELD_OUT", 5)
    found = zoo_pictures("digits-t2i:special")
    assert len(found) == 12
    assert [len(set(found.ids[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 4]
    np.testing.assert_array_equal(found.pixels[0], memorized_picture(few[0]))
    held_out = zoo_pictures("digits-t2i:held-out")
    assert len(held_out) == 5
    assert not set(held_out.ids) & set(found.ids)
    assert zoo_pictures("folder") == "folder"
    assert zoo_pictures(None) is None
    with pytest.raises(InvalidInput, match="no set of pictures"):
        zoo_pictures("digits-t2i:train")


def test_generators_go_through_the_prompts_whatever_the_batch(model):
    generator = PromptedGenerator(model, TEXTS, DRAWING)
    rows = np.arange(12)
    whole = generator.sample(rows, 5)
    assert whole.shape[1:] == generator.shape
    assert generator.condition_of(rows).tolist() == [*range(10), 0, 1]
    np.testing.assert_array_equal(whole[[11, 2]], generator.sample(np.array([11, 2]), 5))
    assert (whole[0] != whole[10]).any()


def test_prompts_are_read_from_text_and_json_lines(tmp_path):
    plain, told = tmp_path / "a.txt", tmp_path / "b.jsonl"
    plain.write_text("a red one\n\n  a blue two \n")
    told.write_text(
        '{"text": "x", "memorized": true, "kind": "a"}\n{"text": "y", "memorized": false, "kind": "b", "more": 3}\n'
    )
    assert load_prompts(plain).texts == ("a red one", "a blue two")
    found = load_prompts(told)
    assert found.texts == ("x", "y")
    assert found.memorized.tolist() == [True, False]
    assert found.kinds == ("a", "b")
    assert found.rows == PromptSet(("y", "x")).rows[::-1]
    assert all(0 <= row < 1 << 63 for row in found.rows)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", EmptySet),
        ('{"text": 3}\n', CorruptFile),
        ("red\n", CorruptFile),
        ('{"text": "x", "memorized": true}\n{"text": "y"}\n', InvalidInput),
        ('{"text": "x"}\n{"text": "x"}\n', InvalidInput),
        ('{"text": "x", "kind": 3}\n', CorruptFile),
        ('{"text": "x", "kind": "a"}\n{"text": "y"}\n', InvalidInput),
    ],
)
def test_files_that_make_no_sense_are_refused(tmp_path, text, error):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(error):
        load_prompts(path)
    with pytest.raises(NotFound):
        load_prompts(tmp_path / "nothing")


def test_the_command_line_scores_prompts_of_a_folder(model, tmp_path):
    model.pipeline.save_pretrained(tmp_path / "sd", safe_serialization=True)
    (tmp_path / "captions.txt").write_text("\n".join(TEXTS[:3]))
    words = ["audit", str(tmp_path / "sd"), "--prompts", str(tmp_path / "captions.txt"), "--out", str(tmp_path / "run")]
    without = CliRunner().invoke(app, ["audit", str(tmp_path / "sd"), "--data", "x", "--out", str(tmp_path / "run")])
    assert "--prompts" in without.exception.remedy
    done = CliRunner().invoke(app, [*words, "--attack", "firstguidancenorm", "--set", "firstguidancenorm.draws=1"])
    assert done.exit_code == 3, done.output
    record = json.loads((tmp_path / "run" / "report.json").read_text())
    assert record["config"]["detectors"] == [{"detector": "FirstGuidanceNorm", "draws": 1}]
    assert record["cost"]["network_evaluations"] == 6
