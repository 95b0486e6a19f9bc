"""The suite's bookkeeping, on readings made by hand; and one job, cut short, from photographs to readings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.toybox_suite import __main__ as suite
from benchmarks.toybox_suite import jobs, method_tables, methods, report
from benchmarks.toybox_suite.__main__ import _jobs
from benchmarks.toybox_suite.arms import GROUPS, MAIN, PRESET, Arm, Training
from cictl.toybox.concepts import ToyConcept, development_concepts, suite_concepts
from cictl.toybox.scoring import alignment, estimate, fidelity, harmonic_estimate
from cictl.toybox.tasks import Task, tasks
from cictl.toybox.world.truth import ATTRIBUTES, truth

Reading = dict[str, str]


def perfect(concept: ToyConcept, task: Task) -> Reading:
    """Right in all, and in a place that no photograph shows."""
    reading = {key: value if value is not None else ATTRIBUTES[key][0] for key, value in truth(task.scene).items()}
    return {**reading, "background": task.asked.get("background", "studio")}


def as_photographed(concept: ToyConcept, task: Task) -> Reading:
    """The first photograph again, whatever was asked for."""
    return {key: value if value is not None else ATTRIBUTES[key][0] for key, value in truth(concept.scenes[0]).items()}


def results(ours: Callable[[ToyConcept, Task], Reading]) -> report.Results:
    concepts = suite_concepts()

    def readings(draw: Callable[[ToyConcept, Task], Reading]) -> dict[str, report.Readings]:
        return {concept.name: [[draw(concept, task)] * 3 for task in tasks(concept)] for concept in concepts}

    arms = {arm.name: readings(ours if arm.training else perfect) for arm in MAIN}
    shown = {concept.name: [[as_photographed(concept, tasks(concept)[0])] * 2] * 5 for concept in concepts}
    return report.Results(concepts, arms, {"the preset": shown}, readings(perfect), {})


def test_perfect_pictures_have_perfect_figures():
    found = report.summary(results(perfect), MAIN)
    for name in ("preset", "preset-stage-1", "n0"):
        assert found[name]["fidelity"] == found[name]["alignment"] == [1, 1, 1]
        assert found[name]["leakage"] == found[name]["leakage above base"] == [0, 0, 0]
        assert found["cubes"][name] == [1, 1, 1]


def test_photographs_copied_out_keep_the_concept_obey_nothing_and_leak():
    everything = results(as_photographed)
    found = report.summary(everything, MAIN)
    assert found["preset"]["fidelity"][0] > 0.9  # an object's own colour is wrong where the prompt changes it: it is not counted
    assert found["preset"]["alignment"][0] < 0.2
    assert found["preset"]["leakage"][0] == found["preset"]["leakage above base"][0] == 1
    assert found["cubes"]["preset"] == [0, 0, 0]


def test_the_tables_hold_a_row_for_each_arm_and_the_ceiling():
    everything = results(perfect)
    for table in (report.main_table, report.prompt_table, report.kind_table):
        text = table(everything, MAIN)
        widths = {line.count("|") for line in text.splitlines()}
        assert len(widths) == 1
        assert all(arm.about in text for arm in MAIN)
    assert "the preset" in report.auxiliary_table(everything)


def test_the_steps_that_were_done_are_told_with_their_mean_over_the_concepts():
    done = {"preset": {"one": {"invert": 100, "finetune": 60}, "two": {"invert": 200, "finetune": 60}}, "n0": {"one": {}}}
    everything = dataclasses.replace(results(perfect), steps=done)
    table = report.steps_table(everything, MAIN).splitlines()
    assert table[2:] == ["| both stages | 150 (100 to 200) | 60 |", "| stage 1 alone | 150 (100 to 200) |  |"]
    assert report.summary(everything, MAIN)["preset"]["steps"] == {"invert": 150, "finetune": 60}
    assert report.steps_table(results(perfect), MAIN) == ""


def test_an_auxiliary_token_is_scored_against_its_own_photograph():
    """The first photograph's reading is right for one of five, and always shows the thing."""
    everything = results(perfect)
    objects = [concept for concept in everything.concepts if concept.kind == "object"]
    line = report.auxiliary_table(everything).splitlines()[-1]
    assert line.split("|")[2].strip().startswith("0.20")
    assert line.split("|")[4].strip().startswith("1.00")
    assert len(objects) == 12


@pytest.mark.parametrize("group", GROUPS)
def test_every_training_and_every_arm_has_one_name(group):
    arms = GROUPS[group]
    assert len({arm.name for arm in arms}) == len(arms)
    by_name: dict[str, Training] = {}
    for arm in arms:
        if arm.training:
            assert by_name.setdefault(arm.training.name, arm.training) == arm.training


def test_arms_of_one_training_share_a_job(tmp_path: Path):
    made = _jobs(tmp_path, development_concepts(), MAIN, 2)
    assert len(made) == 3 * 4  # the preset, n = 0, the base
    assert {arm.name for job in made for arm in job.arms} == {arm.name for arm in MAIN}


def test_pictures_of_several_trainings_stand_behind_one_another_beside_the_bases_own_noise(tmp_path: Path, monkeypatch):
    """Leakage above the base's is a difference picture by picture: each training needs the base's pictures of equal noise."""
    concept = development_concepts()[0]

    def readings(name: str) -> list[list[dict[str, str]]]:
        return [[{"picture": f"{name} {index}"} for index in range(2)] for _ in tasks(concept)]

    def made(job: jobs.Job) -> dict:
        own = {arm.name: {"readings": readings(f"{arm.name} seed {job.seed}")} for arm in job.arms}
        return {"arms": own, "seconds": {}, "steps": {"invert": 300 + job.seed}}

    todo = _jobs(tmp_path, [concept], MAIN, 2, [0, 5])
    assert len({job.name for job in todo}) == 2 * 2 + 1  # two trainings twice, the base once
    assert all("seed" not in jobs.identity(job)["overrides"] for job in todo if job.seed == 0)
    assert all(jobs.identity(job)["overrides"]["seed"] == 5 for job in todo if job.seed)
    monkeypatch.setattr(suite, "done", made)
    monkeypatch.setattr(suite, "ceiling", lambda concept, seeds: [])
    found = suite._collect([concept], todo, 2)
    ours, base = ([one["picture"] for one in found.arms[name][concept.name][0]] for name in ("preset", "base-words"))
    assert ours == [f"preset seed {seed} {index}" for seed in (0, 5) for index in (0, 1)]
    assert base == [f"base-words seed 0 {index}" for _ in range(2) for index in (0, 1)]
    assert report.steps_done(found, MAIN[0]) == {"invert": [300, 305]}


def test_a_job_trains_draws_and_reads_and_is_then_done(tmp_path: Path):
    concept = development_concepts()[0]
    short = Training("short", "short", {"invert.steps": 2, "finetune.steps": 2, "generate.steps": 2})
    arms = tuple(dataclasses.replace(arm, training=short) for arm in MAIN if arm.training == PRESET)
    job = jobs.Job(tmp_path, concept, short, arms, seeds=1)
    assert jobs.done(job) is None
    jobs.run(job)
    result = jobs.done(job)
    assert result is not None and result["steps"] == {"invert": 2, "finetune": 2}
    assert [len(readings) for readings in result["arms"]["preset"]["readings"]] == [1] * 10
    assert [len(readings) for readings in result["auxiliary"]] == [jobs.AUXILIARY_COUNT] * 5
    assert set(result["arms"]["preset"]["readings"][0][0]) == set(ATTRIBUTES)
    changed = job.result.stat().st_mtime_ns
    jobs.run(job)
    assert job.result.stat().st_mtime_ns == changed
    assert jobs.done(dataclasses.replace(job, seeds=2)) is None  # another question, another answer


def test_the_judge_reads_what_is_drawn():
    """Real renders of what is asked for: the ceiling of every figure."""
    concept = suite_concepts()[6]
    readings = jobs.ceiling(concept, 4)
    for score in (fidelity, alignment):
        values = [score(task, reading) for task, own in zip(tasks(concept), readings, strict=True) for reading in own]
        assert estimate([values]).mean > 0.85


def test_a_methods_best_is_the_share_with_the_higher_harmonic_mean_and_both_are_listed_where_they_differ():
    everything = results(perfect)
    early, late = (Arm(f"dreambooth@{share}", "DreamBooth", "dreambooth", Training("t", "t"), share) for share in (0.5, 1.0))
    arms = {**everything.arms, early.name: everything.arms["preset"], late.name: results(as_photographed).arms["preset"]}
    compared = dataclasses.replace(everything, arms=arms)
    assert method_tables.chosen(compared, [early, late]) == [("last", late), ("best", early)]
    swapped = dataclasses.replace(everything, arms={**arms, early.name: arms[late.name], late.name: arms[early.name]})
    assert method_tables.chosen(swapped, [early, late]) == [("last and best", late)]
    equal = dataclasses.replace(everything, arms={**arms, late.name: arms[early.name]})
    assert method_tables.chosen(equal, [early, late]) == [("last and best", late)]
    table = method_tables.rows_table(compared, [early, late])
    assert len({line.count("|") for line in table.split("\n\n")[0].splitlines()}) == 1
    assert "DreamBooth (best) | 0.5 | 1.00 (1.00-1.00) | 1.00 (1.00-1.00) | 1.00 (1.00-1.00) | 1.00 (1.00-1.00) | 0.00" in table


def test_every_method_has_eight_configurations_and_ours_is_a_method_like_the_others():
    for method in methods.TUNED:
        arms = [arm for arm in methods.configurations([method]) if arm.training]
        assert len({arm.name for arm in arms}) == 8
        assert len({(json.dumps(dict(arm.training.overrides), sort_keys=True), arm.share) for arm in arms}) == 8


def test_the_harmonic_mean_of_two_figures_is_that_of_their_means_over_concepts():
    one, other = [[1.0, 0.0], [1.0, 1.0]], [[0.5, 0.5], [1.0, 0.0]]
    found = harmonic_estimate(one, other)
    assert found.mean == pytest.approx(2 * 0.75 * 0.5 / (0.75 + 0.5))
    assert found.low <= found.mean <= found.high
    assert harmonic_estimate([[0.0]], [[1.0]]).mean == 0
