"""One run inside the loop: what it is to do, its state, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch

from tuneahead.benchmark.items import Benchmark
from tuneahead.recipe import Recipe
from tuneahead.trace import Cue, Flatness, ProbeTrace, TraceInfo
from tuneahead.training.checkpoint import Checkpoint, save_adapter, write_checkpoint
from tuneahead.training.encode import RunData
from tuneahead.training.lora import AdapterStack
from tuneahead.training.measure import GradientMeter, ProbeSettings, StepRows
from tuneahead.training.models import Base


@dataclass(frozen=True)
class Job:
    """One run to be made: rows, recipe, and what to do at its end."""

    job_id: str
    data: RunData
    recipe: Recipe
    finals: tuple[Benchmark, ...] = ()
    checkpoint_dir: Path | None = None
    """Where the state at the end is stored, so that the run can go on."""
    resume_from: Path | None = None
    save_dir: Path | None = None
    """Where the adapter is stored in PEFT's format."""


@dataclass(frozen=True)
class RunResult:
    """What a run left: its trace, its scores in percentage points, its cost.

    ``width`` is how many runs shared a pass on average: seconds are each run's share of them.
    """

    job_id: str
    trace: ProbeTrace
    scores: dict[str, float]
    subject_scores: dict[str, dict[str, float]]
    steps: int
    seconds: float
    failure: str = ""
    width: float = 1.0


@dataclass
class Slot:
    """The state of one run inside the loop."""

    job: Job
    total_steps: int
    stop: int
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    step: int = 0
    seconds: float = 0.0
    widths: list[int] = field(default_factory=list)
    rows: StepRows = field(default_factory=StepRows)
    cues: list[Cue] = field(default_factory=list)
    flatness: Flatness | None = None
    failure: str = ""


def trace_of(
    slot: Slot, base: Base, stack: AdapterStack, meter: GradientMeter, settings: ProbeSettings
) -> ProbeTrace:
    """Everything recorded of a run so far, with where it comes from."""
    benchmark = settings.cue_benchmark
    data, recipe = slot.job.data, slot.job.recipe
    layers = tuple(name for name, _ in meter.slices)
    info = TraceInfo(
        base=base.name,
        base_fingerprint=base.fingerprint,
        data_fingerprint=data.fingerprint,
        recipe=recipe.full(),
        total_steps=slot.total_steps,
        train_rows=len(data.train),
        heldout_rows=len(data.heldout),
        parameters=int(stack.active_mask(recipe).sum()),
        layers=layers,
        benchmark=benchmark.name if benchmark else "",
        item_subjects=tuple(item.subject for item in benchmark.items) if benchmark else (),
        chance_pp=benchmark.chance_pp if benchmark else 0.0,
        metric=benchmark.metric if benchmark else "accuracy",
        failure=slot.failure,
        versions=(("torch", torch.__version__), ("transformers", version("transformers"))),
        device=base.device,
    )
    absent = [("benchmark cues", "no benchmark was given")] if benchmark is None else []
    if not data.heldout:
        absent.append(("held-out loss", f"{len(data.train)} rows are too few to hold any out"))
    if not settings.reference_texts:
        absent.append(("reference loss", "no reference texts were given"))
    if slot.flatness is None:
        at = settings.flatness_of(slot.stop)
        absent.append(("flatness", f"the run ended before step {at}" if at else "it was not asked for"))
    return ProbeTrace(
        info,
        slot.rows.columns(len(layers)),
        slot.rows.visits(),
        tuple(slot.cues),
        slot.flatness,
        tuple(absent),
    )


def store_run(
    slot: Slot, place: int, stack: AdapterStack, meter: GradientMeter, trace: ProbeTrace
) -> ProbeTrace:
    """Store adapter and state where the job asks for them; what can't be written is absent from the trace.

    The run in ``place``, and those that train beside it, are not lost to a full disk.
    """
    job, absent = slot.job, [*trace.absent]
    if job.save_dir is not None:
        with _noting("adapter", absent):
            save_adapter(job.save_dir, stack.base, stack, place, job.recipe)
    if job.checkpoint_dir is not None:
        with _noting("checkpoint", absent):
            write_checkpoint(job.checkpoint_dir, checkpoint_of(slot, place, stack, meter, trace))
    return replace(trace, absent=tuple(absent))


@contextmanager
def _noting(what: str, absent: list[tuple[str, str]]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        absent.append((what, f"{error.filename or 'its file'} can't be written: {error.strerror or error}"))


def checkpoint_of(
    slot: Slot, place: int, stack: AdapterStack, meter: GradientMeter, trace: ProbeTrace
) -> Checkpoint:
    """The whole state of the run in ``place``, compacted to what its recipe has."""
    recipe = slot.job.recipe
    state = slot.optimizer.state_dict()["state"].get(0, {})
    rows = {
        "values": stack.values[place],
        "initial": stack.initial[place],
        "previous": meter.previous[place],
        "mean": meter.mean[place],
        "exp_avg": state.get("exp_avg", torch.zeros_like(stack.values[place])),
        "exp_avg_sq": state.get("exp_avg_sq", torch.zeros_like(stack.values[place])),
    }
    compact = {name: stack.compact(row, recipe) for name, row in rows.items()}
    return Checkpoint(slot.step, slot.seconds, compact, slot.generator.get_state(), trace)


def restore(slot: Slot, place: int, stack: AdapterStack, meter: GradientMeter, saved: Checkpoint) -> None:
    """Put a stored state into ``place``; the inverse of :func:`checkpoint_of`."""
    recipe = slot.job.recipe
    saved.require(recipe, slot.job.data.fingerprint, stack.base.fingerprint)
    rows = {name: stack.expand(values, recipe) for name, values in saved.rows.items()}
    stack.load(place, rows["values"], recipe)
    stack.initial[place].copy_(rows["initial"])
    meter.previous[place].copy_(rows["previous"])
    meter.mean[place].copy_(rows["mean"])
    state = slot.optimizer.state_dict()
    state["state"] = {
        0: {
            "step": torch.tensor(float(saved.step)),
            "exp_avg": rows["exp_avg"],
            "exp_avg_sq": rows["exp_avg_sq"],
        }
    }
    slot.optimizer.load_state_dict(state)
    if len(saved.generator) == len(slot.generator.get_state()):
        slot.generator.set_state(saved.generator)
    else:
        # Stored on another kind of device, whose generators are of another kind too.
        slot.generator.manual_seed(recipe.seed + 1 + saved.step)
    slot.step, slot.seconds = saved.step, saved.seconds
    slot.cues, slot.flatness = list(saved.trace.cues), saved.trace.flatness
    slot.rows = saved.step_rows()
