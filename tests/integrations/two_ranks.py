"""Run under torchrun: a recorded run, then a run that blows up behind a gate; results go to a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from integrations.trainer_fixtures import RECIPE, TEXTS, make_data, make_exam, make_trainer

from tuneahead.integrations.transformers import Gate, RunNotes, TraceRecorder
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import load_base
from tuneahead.verdict import Goal


def main(model: Path, folder: Path, predictor: Path, late: Path) -> None:
    base = load_base(str(model), device="cpu")
    settings = ProbeSettings(
        record_steps=6, cue_steps=(0, 6), cue_benchmark=make_exam(), reference_texts=TEXTS, flatness_at=6
    )
    recorder = TraceRecorder(settings, notes=RunNotes(base=base.name))
    trainer = make_trainer(
        model, folder / "a", base, make_data(base), RECIPE, processes=2, callbacks=[recorder]
    )
    trainer.train()
    rank = trainer.args.process_index
    if recorder.trace is not None:
        (folder / f"rank{rank}.trace").write_bytes(recorder.trace.to_bytes())
    wild = RECIPE.replace(learning_rate=1e30, max_grad_norm=None, warmup_ratio=0.0)
    gate = Gate(predictor, probe_steps=10, benchmark=make_exam())
    # The processes share each batch of four here, instead of having two rows of their own.
    shared = {"accelerator_config": {"split_batches": True}}
    trainer = make_trainer(model, folder / "b", base, make_data(base), wild, callbacks=[gate], **shared)
    trainer.train()
    found = {
        "decision": gate.decision,
        "steps": trainer.state.global_step,
        "judged": gate.assessment is not None,
        "batch_size": 0 if gate.assessment is None else gate.assessment.recipe.batch_size,
    }
    # An early look tells both, too, and the good run that it lets go on is judged as without it.
    early = {}
    for rate in (5e-2, 1e-3):
        recipe = RECIPE.replace(learning_rate=rate, max_steps=14)
        notes = RunNotes(base="tiny")
        goal = Goal(minimum_pp=50)
        gate = Gate(late, goal, 12, early=[predictor], benchmark=make_exam(), notes=notes)
        trainer = make_trainer(
            model, folder / f"{rate}", base, make_data(base), recipe, processes=2, callbacks=[gate]
        )
        trainer.train()
        early[str(rate)] = (gate.decision, trainer.state.global_step, gate.assessment is not None)
    found["early"] = early
    (folder / f"rank{rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
