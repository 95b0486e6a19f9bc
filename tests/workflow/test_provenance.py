"""What trainings that are compared do not share is found, and what each has for itself is not taken for it."""

from __future__ import annotations

from dataclasses import replace

from cictl.workflow.provenance import Trained, unlike

OURS = Trained(
    "invert", 300,
    {"seed": 0, "data.resolution": 64, "invert.learning_rate": 5e-3, "model.clip": "toybox", "identity.model": None},
    {"a.png": "1"}, {"torch": "2.1", "device": "cpu", "dtype": "fp32", "threads": 1},
)  # fmt: skip
THEIRS = replace(
    OURS, stage="dreambooth",
    settings={"seed": 0, "data.resolution": 64, "dreambooth.learning_rate": 1e-6, "evaluate.noun": "dog", "identity.model": "b1"},
)  # fmt: skip


def test_a_methods_own_settings_and_what_one_does_not_know_are_no_difference():
    assert unlike([OURS, THEIRS, replace(OURS, stage="finetune", circumstances={**OURS.circumstances, "threads": 8})]) == []
    assert unlike([]) == []


def test_another_seed_or_machine_is_named_with_the_trainings_that_have_it():
    other = replace(THEIRS, settings={**THEIRS.settings, "seed": 5}, circumstances={**OURS.circumstances, "dtype": "bf16"})
    assert unlike([OURS, other, replace(OURS, stage="finetune")]) == [
        "seed: 0 (invert, finetune), 5 (dreambooth)",
        "dtype: fp32 (invert, finetune), bf16 (dreambooth)",
    ]
