"""A callback that records a probe trace from any transformers Trainer with a PEFT LoRA model."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tuneahead.errors import ModelError
from tuneahead.integrations.live import live_base, same_draws
from tuneahead.integrations.liveprobe import LiveProbe
from tuneahead.integrations.losses import ClipMeter, LossMeter, Visit
from tuneahead.integrations.rows import data_lack
from tuneahead.recipe import Recipe
from tuneahead.trace import ProbeTrace
from tuneahead.training.hardware import is_out_of_memory
from tuneahead.training.measure import ProbeSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from tuneahead.examples import Example
    from tuneahead.training.models import Base


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunNotes:
    """What a Trainer does not know about its run; everything may be left out.

    ``base`` is the base model's name in the history (default: where it was loaded from).
    ``examples`` are the training rows as text (default: decoded from the Trainer's own rows).
    ``recipe`` replaces the one read from the Trainer's arguments.
    """

    base: str = ""
    examples: Sequence[Example] | None = None
    recipe: Recipe | None = None


class TraceRecorder(TrainerCallback):
    """Records the first steps of a Trainer's run as a :class:`ProbeTrace`, without changing the run.

    ``trace`` is there once ``settings.record_steps`` steps are done or training has ended; with
    several processes (DDP) rank 0 records and holds it. A run that is resumed from a checkpoint is
    not recorded, which is printed. Raises :class:`ModelError` at the start of training for a model without
    LoRA matrices, for one that is no causal language model, for batches without labels, for sharded
    gradients and for DataParallel. What fails later, and want of memory at any time, ends the recording with
    a logged warning, and training goes on.

    >>> recorder = TraceRecorder(ProbeSettings(record_steps=50))               # doctest: +SKIP
    >>> Trainer(model, args, train_dataset=rows, callbacks=[recorder]).train()  # doctest: +SKIP
    >>> recorder.trace.steps.loss_nats                                         # doctest: +SKIP
    """

    _deed = "recorded"
    """What is done to a run, as a resumed one's line says it."""

    def __init__(self, settings: ProbeSettings | None = None, *, notes: RunNotes | None = None) -> None:
        self.settings = settings or ProbeSettings()
        self.notes = notes or RunNotes()
        self.trace: ProbeTrace | None = None
        self.probe: LiveProbe | None = None
        """What rank 0 measures with; None on other ranks and outside the probe."""
        self._trainer: Trainer | None = None
        self._losses: LossMeter | None = None
        self._clip: ClipMeter | None = None
        self._began = 0.0
        self._step = 0
        self._failure = ""

    def attach(self, trainer: Trainer) -> None:
        """Add this callback to ``trainer``; the same as giving it in ``callbacks=[...]``."""
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)

    # ------ the Trainer's events

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Put meters on the run and take the cue of step 0."""
        self._release()
        if state.global_step > 0:
            # The probe is the run's first steps; a run that is resumed has them behind it.
            if state.is_world_process_zero:
                print(f"resumed at step {state.global_step:,}: this run is not {self._deed}")
            return
        trainer = self._trainer = _calling_trainer() or _known(self._trainer)
        self.trace, self._failure, self._step = None, "", 0
        model = _adapted_model(trainer)
        if not self._set_up(trainer, model):
            self._release()
            return
        self._losses, self._clip = LossMeter(trainer, model), ClipMeter(trainer, model)
        try:
            begins = self.may_begin(trainer, control)
            if begins:
                self._observe(trainer)
        except BaseException:
            # The Trainer is left as it was: it may be used again, without this callback.
            self._release()
            raise
        if not begins:
            self._release()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Measure the gradient, which is clipped by now: see :class:`ClipMeter`."""
        clip, trainer = self._clip, self._trainer
        if clip is not None and trainer is not None:
            clip.complete()
            self._attempt(lambda probe: probe.before_update(clip.factor, _scaled(trainer)))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Measure the update."""
        self._attempt(lambda probe: probe.after_update())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Write the step down; at the probe's end, close it."""
        if self._losses is None or self._clip is None or self._trainer is None:
            return
        seconds = time.perf_counter() - self._began
        sums = (*self._losses.take(), float(self._losses.failed))
        own = torch.tensor(sums, dtype=torch.float32, device=args.device)
        loss, tokens, failed = (float(x) for x in self._trainer.accelerator.reduce(own, "sum"))
        if failed:
            # On one process at least, and all of them learn it here.
            self._release()
            return
        self._attempt(lambda probe: probe.record(loss, tokens, seconds))
        # Sum and norm are the same on all ranks, so all of them end the probe together.
        if not np.isfinite(loss) or not (np.isfinite(self._clip.norm) or _scaled(self._trainer)):
            what = "gradient norm" if np.isfinite(loss) else "loss"
            self._failure = f"the {what} was not finite at step {self._step}"
        self._step += 1
        if not self._failure:
            self._observe(self._trainer)
        if self._failure or self._step >= self.settings.record_steps:
            self._finish(self._trainer, control)
        else:
            self.step_ended(self._trainer, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Close a probe that the run's end cut short."""
        if self._losses is not None and self._trainer is not None:
            self._finish(self._trainer, control)

    # ------ for subclasses, called on every rank

    def plan(self, base: Base, total_steps: int) -> None:
        """The base and the run's length are known: the last moment to change ``settings``."""

    def may_begin(self, trainer: Trainer, control: TrainerControl) -> bool:
        """Whether to probe at all, asked before the first step."""
        return True

    def step_ended(self, trainer: Trainer, control: TrainerControl) -> None:
        """A step that is not the probe's last is written down, with the cue that was due."""

    def probe_ended(self, trainer: Trainer, control: TrainerControl) -> None:
        """The trace is complete (on rank 0), and ``probe`` still open."""

    # ------ the probe

    def _set_up(self, trainer: Trainer, model: PeftModel) -> bool:
        """Plan the probe and open it on rank 0; False on every rank where one has no memory for that."""
        lacking = 0.0
        try:
            _require_labels(trainer)
            base = live_base(model, _tokenizer(trainer), self.notes.base, str(trainer.args.device))
            self.plan(base, trainer.state.max_steps)
            if trainer.accelerator.is_main_process:
                notes = self.notes
                self.probe = LiveProbe(
                    trainer, model, base, self.settings, examples=notes.examples, recipe=notes.recipe
                )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Raised, it would end the training or, under auto_find_batch_size, make its batches smaller.
            _log_end(error)
            lacking = 1.0
        own = torch.tensor(lacking, device=trainer.args.device)
        return not float(trainer.accelerator.reduce(own, "sum"))

    def _observe(self, trainer: Trainer) -> None:
        if self._step in self.settings.cue_steps or self._step == self.settings.flatness_at:
            self._attempt(lambda probe: probe.observe(self._step), begun=self._step > 0)
            trainer.accelerator.wait_for_everyone()

    def _take_trace(self, trainer: Trainer) -> None:
        """Make the trace of the steps so far; every rank hands in what it saw."""
        assert self._losses is not None
        losses, visits = self._losses, _gather_visits(trainer, self._losses.visits)

        def close(probe: LiveProbe) -> None:
            probe.place_visits(visits, losses.no_rows)
            self.trace = probe.trace(self._failure)

        self._attempt(close)

    def _finish(self, trainer: Trainer, control: TrainerControl) -> None:
        self._take_trace(trainer)
        # Taken off first: what follows may run the model.
        self._take_off()
        self.probe_ended(trainer, control)
        self.probe = None

    def _attempt(self, act: Callable[[LiveProbe], None], *, begun: bool = True) -> None:
        """Measure, where this process does: the training that is paid for outlives whatever fails here.

        Only the probe is given up: the other processes go on, and wait for this one as before.
        """
        if self.probe is None:
            return
        try:
            # Measuring, judging and printing may draw; so may a library when it is first loaded.
            with same_draws():
                act(self.probe)
        except Exception as error:
            # Before the first step nothing is paid for; but memory may suffice for training alone.
            if not begun and not is_out_of_memory(error):
                raise
            _log_end(error)
            self.probe = None

    def _release(self) -> None:
        self._take_off()
        self.probe = None

    def _take_off(self) -> None:
        for meter in (self._losses, self._clip):
            if meter is not None:
                meter.close()
        self._losses = self._clip = None


def _log_end(error: Exception) -> None:
    _LOG.warning("the probe is given up, training goes on: %s", error, exc_info=True)


def _calling_trainer() -> Trainer | None:
    """The Trainer whose event is being handled: it hands its callbacks everything save itself."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Trainer):
            return owner
        frame = frame.f_back
    return None


def _known(trainer: Trainer | None) -> Trainer:
    if trainer is None:
        raise ModelError(
            "this callback can't find its Trainer", remedy="call attach(trainer) before trainer.train()"
        )
    return trainer


def _adapted_model(trainer: Trainer) -> PeftModel:
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if not isinstance(model, PeftModel):
        raise ModelError(
            f"the Trainer's model is a {type(model).__name__}, not a PEFT model",
            remedy="wrap it with peft.get_peft_model(model, LoraConfig(...))",
        )
    inner = cast("PreTrainedModel", model.get_base_model())
    headless = inner.get_output_embeddings() is None  # type: ignore[no-untyped-call]
    masked = any(kind.__name__.endswith("ForMaskedLM") for kind in type(inner).__mro__)
    if headless or masked or inner.config.is_encoder_decoder:
        raise ModelError(
            f"the Trainer's model is a {type(inner).__name__}, not a causal language model",
            remedy="leave this callback out: it measures the loss and the answers of causal language models",
        )
    if any(type(weight).__name__ == "DTensor" for weight in inner.parameters()):
        raise ModelError(
            "gradients can't be measured where every device holds a part of each matrix (DTensor)",
            remedy="use one device, or one process for each with torchrun (DDP)",
        )
    kind = str(getattr(trainer.accelerator.distributed_type, "value", trainer.accelerator.distributed_type))
    if trainer.args.n_gpu > 1 or not (kind == "NO" or kind.startswith("MULTI_")):
        what = "nn.DataParallel" if trainer.args.n_gpu > 1 else kind
        raise ModelError(
            f"gradients can't be measured under {what}",
            remedy="use one device (CUDA_VISIBLE_DEVICES=0), or one process for each with torchrun (DDP)",
        )
    return model


def _require_labels(trainer: Trainer) -> None:
    """A :class:`ModelError` where the run trains no labels: preferences, rewards, a loss of its own."""
    loader = trainer.callback_handler.train_dataloader
    assert loader is not None, "training has begun"
    with same_draws():
        lack = data_lack(loader.dataset, loader.collate_fn)
    if lack:
        raise ModelError(
            f"the batches of this {type(trainer).__name__} hold no {lack}",
            remedy="leave this callback out: it measures the loss of tokens that a collator labels (SFT)",
        )


def _tokenizer(trainer: Trainer) -> Any:
    if trainer.processing_class is None:
        raise ModelError(
            "the Trainer has no tokenizer", remedy="give it one: Trainer(..., processing_class=tokenizer)"
        )
    # A processor of text and images holds the tokenizer.
    return getattr(trainer.processing_class, "tokenizer", trainer.processing_class)


def _scaled(trainer: Trainer) -> bool:
    return getattr(trainer.accelerator, "scaler", None) is not None


def _gather_visits(trainer: Trainer, visits: Sequence[Visit]) -> list[Visit]:
    """The visits of all processes, step by step."""
    accelerator = trainer.accelerator
    if accelerator.num_processes == 1:
        return list(visits)
    whole = torch.tensor([[v.step, v.key, v.tokens] for v in visits], dtype=torch.int64).reshape(-1, 3)
    nll = torch.tensor([v.nll_nats for v in visits], dtype=torch.float32)
    whole, nll = whole.to(accelerator.device), nll.to(accelerator.device)
    # Processes may have seen unequal numbers of rows. Tensors only: nothing is pickled.
    numbers = accelerator.gather(accelerator.pad_across_processes(whole, pad_index=-1)).tolist()
    losses = accelerator.gather(accelerator.pad_across_processes(nll)).tolist()
    pairs = zip(numbers, losses, strict=True)
    found = [Visit(step, key, loss, tokens) for (step, key, tokens), loss in pairs if step >= 0]
    return sorted(found, key=lambda visit: visit.step)
