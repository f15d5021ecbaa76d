"""Inside the Trainer: record a probe trace, and stop a run that will not reach its goal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from tuneahead.assessment import NAN, Assessment, Checkup, Costs, DataSummary
from tuneahead.conclusion import Task, conclude, stopped, task_info
from tuneahead.errors import PredictorError, StoreError
from tuneahead.features.sampling import StaticFeatures
from tuneahead.features.vector import FeatureVector
from tuneahead.integrations.findings import idle_layers, trainer_findings
from tuneahead.integrations.liveprobe import LiveProbe
from tuneahead.integrations.predictors import by_length, known_predictor, loaded, several
from tuneahead.integrations.recorder import RunNotes, TraceRecorder
from tuneahead.predictor.packaged import PROBE_STEPS
from tuneahead.verdict import Decision, Finding, Goal, first_stop, given_goal
from tuneahead.workbench import (
    Setup,
    Workbench,
    cue_steps,
    find_benchmark,
    require_price,
    require_probe_steps,
)

if TYPE_CHECKING:
    from rich.console import Console

    from tuneahead.benchmark.items import Benchmark
    from tuneahead.history.store import RunStore
    from tuneahead.predictor.predictor import Predictor
    from tuneahead.training.models import Base

__all__ = ["Gate", "RunNotes", "TraceRecorder"]

_DECISIONS: tuple[Decision, ...] = ("GO", "UNSURE", "NO_GO")


class Gate(TraceRecorder):
    """A Trainer callback that probes the run, says what it will score, and stops it when it is doomed.

    After ``probe_steps`` optimiser steps it predicts the final benchmark score, prints the verdict,
    and on NO_GO ends training with a checkpoint; on GO and UNSURE training goes on. ``assessment``
    then holds everything (see :func:`tuneahead.write_html`), ``decision`` the verdict on every rank.

    ``early`` are predictors of shorter probes (fitted ones or folders, see ``tuneahead fit --probe-steps``).
    Each has the gate look already at the end of its own probe, and stop there what it calls NO_GO.

    ``predictor`` is a fitted one, a folder, or None for the shipped one; ``benchmark`` as in
    :class:`~tuneahead.workbench.Setup`, or a :class:`Benchmark`. With ``store``, a file or an open one, the
    probed run is kept under ``run_id``, to be scored later; where the store can't be written that is printed
    and training goes on. Without ``stop`` training goes on whatever the verdict is. ``price_per_hour`` of the
    machines, in any currency, has times shown in money too. Raises BenchmarkError, PredictorError, StoreError
    or, for such a goal or price, TuneAheadError at once, and what :class:`TraceRecorder` raises when training
    begins.

    >>> gate = Gate(predictor, Goal(gain_pp=3), benchmark="exam.jsonl")    # doctest: +SKIP
    >>> Trainer(model, args, train_dataset=rows, callbacks=[gate]).train()  # doctest: +SKIP
    >>> gate.decision                                                      # doctest: +SKIP
    'NO_GO'
    """

    _deed = "judged"

    def __init__(
        self,
        predictor: Predictor | str | Path | None = None,
        goal: Goal | None = None,
        probe_steps: int = PROBE_STEPS,
        *,
        early: Sequence[Predictor | str | Path] | Predictor | str | Path = (),
        benchmark: Benchmark | str | Path = "lab-exam",
        store: RunStore | str | Path | None = None,
        notes: RunNotes | None = None,
        stop: bool = True,
        price_per_hour: float = NAN,
    ) -> None:
        super().__init__(notes=notes)
        self.goal = given_goal(goal)
        self.probe_steps = require_probe_steps(probe_steps)
        self.benchmark = find_benchmark(benchmark) if isinstance(benchmark, (str, Path)) else benchmark
        self.predictor = loaded(predictor)
        self.early = by_length(several(early), self.probe_steps)
        self.store, self.stop = _opened(store), stop
        self.price_per_hour = require_price(price_per_hour)
        self.run_id = ""
        self.assessment: Assessment | None = None
        self.decision: Decision | None = None
        self._bench: Workbench | None = None
        self._looks: dict[int, Workbench] = {}
        self._measured: tuple[StaticFeatures, float] | None = None
        self._findings: tuple[Finding, ...] = ()
        self._start = 0.0
        self._unsaved = False

    def plan(self, base: Base, total_steps: int) -> None:
        """Cues, reference texts and flatness as an assessment of the same run would take them."""
        self.assessment, self.decision, self.run_id = None, None, ""
        self._unsaved, self._measured = False, None
        self._bench = self._workbench(base, self.predictor, self.probe_steps)
        usual = cue_steps(base)
        if unasked := [steps for steps in self.early if steps not in usual]:
            raise PredictorError(
                f"an early look at step {unasked[0]} would have no score to go by: a probe on this base asks "
                f"the benchmark at steps {', '.join(map(str, usual))}",
                remedy=f"give a predictor fitted with --probe-steps {usual[-2]}",
            )
        self._looks = {steps: self._workbench(base, one, steps) for steps, one in self.early.items()}
        self.settings = self._bench.settings([min(self.probe_steps, total_steps)])
        self._start = time.perf_counter()

    def _workbench(self, base: Base, predictor: Predictor | None, steps: int) -> Workbench:
        setup = Setup(base=base.name, benchmark=self.benchmark.name, probe_steps=steps)
        known, absent = known_predictor(predictor, base.name, self.benchmark)
        return Workbench(setup, base, self.benchmark, known, absent)

    def may_begin(self, trainer: Trainer, control: TrainerControl) -> bool:
        """Preflight on the rows' text; a sure failure stops the run after its first pass."""
        try:
            self._attempt(self._check, begun=False)
        finally:
            # Also after an error: the other ranks wait here, and would for ever.
            self._share(trainer, control)
        if self.decision == "NO_GO" and not self.stop:
            self.decision = None
        return self.decision != "NO_GO"

    def step_ended(self, trainer: Trainer, control: TrainerControl) -> None:
        """Look early where a predictor can, on rank 0; what it calls doomed ends on every rank."""
        bench = self._looks.get(self._step)
        if bench is None:
            return
        self._take_trace(trainer)
        self._judged(trainer, control, lambda probe: self._look(probe, bench))
        if self.decision == "NO_GO":
            # The trace stays: it is what the verdict was made from.
            self._release()
        else:
            self.trace = None

    def probe_ended(self, trainer: Trainer, control: TrainerControl) -> None:
        """Judge on rank 0, and let every rank act on it."""
        self._judged(trainer, control, lambda probe: self._announce(self._judge(probe, self._bench)))

    def _judged(self, trainer: Trainer, control: TrainerControl, judge: Callable[[LiveProbe], None]) -> None:
        try:
            self._attempt(judge)
        finally:
            self._share(trainer, control)
        self._unsaved = self.decision == "NO_GO" and self.stop

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """The checkpoint of a stopped run is written."""
        self._unsaved = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Ask once more for a stopped run's checkpoint, where none was written."""
        # Under save_strategy "best" an evaluation that is due at the same step has the last word.
        if self._unsaved:
            control.should_save = True

    def _check(self, probe: LiveProbe) -> None:
        self._findings = trainer_findings(probe, self.benchmark)
        if first_stop(self._findings):
            nothing = StaticFeatures(FeatureVector({}), {})
            self._announce(stopped(self._task(probe, nothing, 0.0), self.goal))

    def _look(self, probe: LiveProbe, bench: Workbench) -> None:
        """Stop a run that is doomed already, or say that it goes on."""
        from rich.console import Console
        from rich.text import Text

        from tuneahead.report import words

        console = Console()
        steps = f"{self._step:,} of {probe.trainer.state.max_steps:,} steps"
        if bench.predictor is None:
            console.print(Text(f"After {steps} no forecast: {bench.predictor_absent}"))
            return
        found = self._judge(probe, bench)
        doomed = found.verdict.decision == "NO_GO"
        if doomed and self.stop:
            console.print(Text(f"After {steps}:"))
            self._announce(found)
        else:
            said = f"{words.VERDICTS['NO_GO'].upper()}: " if doomed else ""
            console.print(Text(f"After {steps}: {said}{words.reason(found)} The probe goes on."))

    def _judge(self, probe: LiveProbe, bench: Workbench | None) -> Assessment:
        from tuneahead.training.loop import RunResult

        assert bench is not None and self.trace is not None, "training has begun"
        steps = self.trace.steps
        spent = float(steps.seconds.sum()) + sum(cue.seconds for cue in self.trace.cues)
        result = RunResult("trainer", self.trace, {}, {}, len(steps), spent, self.trace.info.failure)
        seconds = time.perf_counter() - self._start
        if self._measured is None:
            began = time.perf_counter()
            static = self._static(probe)
            self._measured = static, time.perf_counter() - began
        return conclude(self._task(probe, *self._measured), result, bench, self.goal, seconds)

    def _static(self, probe: LiveProbe) -> StaticFeatures:
        from tuneahead.features.catalogue import names_of
        from tuneahead.features.extract import measure_examples
        from tuneahead.features.perplexity import OF_THE_BASE

        if not probe.examples:
            nothing = FeatureVector(dict.fromkeys(names_of("static"), NAN))
            why = probe.rows.reason or "no row was read"
            return StaticFeatures(nothing.without(dict.fromkeys(nothing.values, why)), {})
        base = None if probe.pictured else probe.base
        # What the data looks like to the base has to be asked of the base, not of the trained adapter.
        with probe.watching(), probe.adapter.as_begun():
            static = measure_examples(
                probe.examples,
                base=base,
                benchmarks=(self.benchmark,),
                total=probe.data_rows,
                encoded=probe.asked,
            )
        unasked = dict.fromkeys(OF_THE_BASE, probe.pictured) if probe.pictured else {}
        return replace(static, features=static.features.without(unasked))

    def _task(self, probe: LiveProbe, static: StaticFeatures, seconds: float) -> Task:
        from tuneahead.columns import ColumnMapping
        from tuneahead.dataset import Dataset, fingerprint

        trace = probe.trace("")
        dataset = Dataset(
            probe.examples, fingerprint(probe.examples), Path("trainer"), "trainer", ColumnMapping()
        )
        # Of packed rows the Trainer counts lines; the findings are about the rows in them.
        of_trainer = probe.given and not probe.packed
        rows = trace.info.train_rows if of_trainer else probe.data_rows or trace.info.train_rows
        summary = DataSummary(
            path="the Trainer's train_dataset",
            format="trainer",
            rows=rows,
            fingerprint=dataset.fingerprint,
            tokens=float(probe.rows.tokens) if probe.examples else NAN,
            answer_tokens=float(probe.rows.answer_tokens) if probe.examples else NAN,
            # What is said beside errors, that all else is over all rows, would be wrong of every second row.
            samples=static.samples if len(probe.examples) == rows else {},
        )
        costs = Costs(check_seconds=seconds, price_per_hour=self.price_per_hour)
        findings = (*self._findings, *idle_layers(probe))
        checkup = Checkup(summary, probe.recipe.full(), findings, static.features, costs)
        info = task_info(
            probe.base,
            self.benchmark,
            probe_steps=len(trace.steps),
            total_steps=trace.info.total_steps,
            train_rows=trace.info.train_rows,
            heldout_rows=trace.info.heldout_rows,
        )
        return Task(dataset, probe.data, checkup, info, range(1, trace.info.train_rows + 1))

    def _announce(self, assessment: Assessment) -> None:
        from rich.console import Console
        from rich.text import Text

        console = Console()
        self.assessment, self.decision = assessment, assessment.verdict.decision
        print_verdict(console, assessment)
        if self.store is not None and assessment.trace is not None:
            from tuneahead.record import record_run

            try:
                if self.probe is not None and not self.probe.examples:
                    raise StoreError(
                        "its rows can't be read, so nothing tells its data set from others",
                        remedy="give the rows as text: RunNotes(examples=...)",
                    )
                self.run_id = record_run(assessment, self.store)
            except StoreError as error:
                # A full disk must not end the user's training.
                console.print(Text(f"the run was not kept: {error}"))

    def _share(self, trainer: Trainer, control: TrainerControl) -> None:
        """Every rank learns rank 0's decision and does the same: ranks that part wait for ever."""
        own = -1 if self.decision is None else _DECISIONS.index(self.decision)
        main = trainer.accelerator.is_main_process
        code = torch.tensor(own if main else 0, device=trainer.accelerator.device)
        shared = int(trainer.accelerator.reduce(code, "sum"))
        self.decision = None if shared < 0 else _DECISIONS[shared]
        if self.decision == "NO_GO" and self.stop:
            control.should_training_stop = True
            control.should_save = True


def _opened(store: RunStore | str | Path | None) -> RunStore | None:
    if isinstance(store, (str, Path)):
        from tuneahead.history.store import RunStore

        return RunStore(store)
    return store


def print_verdict(console: Console, assessment: Assessment) -> None:
    """The verdict in a few lines: decision, forecast, reason, and the first things to do."""
    from rich.text import Text

    from tuneahead.report import words
    from tuneahead.terminal import COLOURS, costs_line

    decision = assessment.verdict.decision
    line = Text(f"{words.VERDICTS[decision].upper()}  ", style=f"bold {COLOURS[decision]}")
    line.append(words.lead(assessment), style="default")
    console.print(line)
    console.print(Text(words.reason(assessment)))
    if math.isfinite(assessment.costs.price_per_hour):
        console.print(costs_line(assessment))
    for fix in assessment.fixes[:3]:
        console.print(Text(f"- {words.sentence(fix.reason)}\n  -> {fix.title}"))
