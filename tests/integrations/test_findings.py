"""What a gate says of a Trainer's rows and labels before the first step."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from integrations.trainer_fixtures import RECIPE, make_data, make_exam, make_trainer
from transformers import TrainerCallback

from tuneahead.checks.trained import trained_findings
from tuneahead.integrations.transformers import Gate, RunNotes
from tuneahead.training.encode import Encoded
from tuneahead.training.models import Base
from tuneahead.verdict import Finding

Change = Callable[[Encoded], Encoded]
OF_LABELS = ("masked-answers", "empty-answers", "end-token", "cut-answers")


def masked(row: Encoded) -> Encoded:
    """No token is trained, as where a response template is not found."""
    return replace(row, answer=(False,) * len(row.answer))


def open_ended(row: Encoded) -> Encoded:
    """The end token is there and its label is masked, as padding's is where both are one token."""
    assert row.answer[-1]
    return replace(row, answer=(*row.answer[:-1], False))


def findings_in_a_gate(path: Path, folder: Path, base: Base, change: Change, share: float) -> list[Finding]:
    """Those of a run of which this share of the rows was changed; the run goes to its end."""
    recipe = RECIPE.replace(max_steps=7)
    data = make_data(base, recipe)
    changed = round(share * len(data.train))
    data = replace(data, train=(*map(change, data.train[:changed]), *data.train[changed:]))
    gate = Gate(None, probe_steps=5, benchmark=make_exam(), notes=RunNotes(base="tiny"), stop=False)
    trainer = make_trainer(path, folder, base, data, recipe, callbacks=[gate])
    trainer.train()
    assert gate.assessment is not None and trainer.state.global_step == 7
    return [f for f in gate.assessment.findings if f.check in OF_LABELS]


def test_labels_that_are_all_masked_are_told_as_that(path: Path, base: Base, tmp_path: Path) -> None:
    (found,) = findings_in_a_gate(path, tmp_path, base, masked, 1.0)
    assert (found.check, found.severity, found.count) == ("masked-answers", "stop", 32)
    assert "no row has a trained token" in found.message and "response template" in found.remedy


def test_rows_that_are_masked_are_not_told_as_empty_answers(path: Path, base: Base, tmp_path: Path) -> None:
    (found,) = findings_in_a_gate(path, tmp_path, base, masked, 0.25)
    assert (found.check, found.severity, found.rows) == ("masked-answers", "warn", tuple(range(1, 9)))
    assert found.message == "8 of 32 rows (25.0 %) have no trained token, their labels are all masked"


def test_an_end_that_no_row_trains_is_told(path: Path, base: Base, tmp_path: Path) -> None:
    (found,) = findings_in_a_gate(path, tmp_path, base, open_ended, 1.0)
    assert (found.check, found.severity) == ("end-token", "warn") and "never learn to stop" in found.message


def test_sound_rows_have_no_findings_of_their_labels(path: Path, base: Base, tmp_path: Path) -> None:
    assert findings_in_a_gate(path, tmp_path, base, masked, 0.0) == []


class Freeze(TrainerCallback):  # type: ignore[misc]
    """Freezes LoRA matrices once training has begun, as a callback with a schedule of layers does."""

    def __init__(self, names: str) -> None:
        self.names = names

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        for name, weight in model.named_parameters():
            weight.requires_grad &= re.search(self.names, name) is None


@pytest.mark.parametrize(
    ("names", "severity", "said"),
    [
        (r"layers\.0\..*q_proj", "note", "1 of 14 adapted layers had no gradient in 5 steps and is not"),
        (r"layers\.0\.|layers\.1\.mlp", "warn", "10 of 14 adapted layers had no gradient in 5 steps and are"),
        (r"nothing", None, ""),
    ],
)
def test_adapted_layers_that_never_have_a_gradient_are_told(
    path: Path, base: Base, tmp_path: Path, names: str, severity: str | None, said: str
) -> None:
    gate = Gate(None, probe_steps=5, benchmark=make_exam(), notes=RunNotes(base="tiny"))
    recipe = RECIPE.replace(max_steps=7)
    callbacks = [Freeze(names), gate]
    make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=callbacks).train()
    assert gate.assessment is not None
    found = [f for f in gate.assessment.findings if f.check == "no-effect"]
    assert [f.severity for f in found] == ([severity] if severity else [])
    assert all(said in f.message and "gradient checkpointing" in f.remedy for f in found)


def test_layers_that_are_frozen_from_the_start_are_told_too(path: Path, base: Base, tmp_path: Path) -> None:
    gate = Gate(None, probe_steps=5, benchmark=make_exam(), notes=RunNotes(base="tiny"))
    recipe = RECIPE.replace(max_steps=7)
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate])
    for name, weight in trainer.model.named_parameters():
        weight.requires_grad &= "layers.1." not in name
    trainer.train()
    assert gate.assessment is not None
    (found,) = (f for f in gate.assessment.findings if f.check == "no-effect")
    assert found.severity == "warn" and "7 of 14 adapted layers had no gradient in 5 steps" in found.message
    assert "model.layers.1.self_attn.q_proj" in found.message


def test_a_warm_up_longer_than_the_run_is_told(path: Path, base: Base, tmp_path: Path) -> None:
    gate = Gate(None, probe_steps=5, benchmark=make_exam(), notes=RunNotes(base="tiny"))
    recipe = RECIPE.replace(max_steps=7)
    trainer = make_trainer(path, tmp_path, base, make_data(base, recipe), recipe, callbacks=[gate])
    trainer.args.warmup_steps = 50
    trainer.train()
    assert gate.assessment is not None
    (found,) = (f for f in gate.assessment.findings if f.check == "learning-rate")
    assert found.severity == "warn" and "50 warm-up steps are more than the run's 7" in found.message


@pytest.mark.parametrize(("rows", "severity"), [(32, "warn"), (101, "note")])
def test_single_open_ends_are_cut_answers_unless_rows_are_packed(
    base: Base, rows: int, severity: str
) -> None:
    sound = make_data(base).train
    given = [replace(sound[i % len(sound)], row=i + 1) for i in range(rows)]
    given[6] = open_ended(given[6])
    (found,) = trained_findings(given, base.tokenizer, packed=False)
    assert (found.check, found.severity, found.rows) == ("cut-answers", severity, (7,))
    assert trained_findings(given, base.tokenizer, packed=True) == ()
