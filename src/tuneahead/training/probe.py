"""The probe: the first steps of the very run, recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneahead.benchmark.items import Benchmark
from tuneahead.dataset import Example
from tuneahead.errors import DataError
from tuneahead.recipe import Recipe
from tuneahead.training.encode import Encoded, RunData, data_fingerprint, encode_examples, split_data
from tuneahead.training.loop import train_stack
from tuneahead.training.measure import ProbeSettings
from tuneahead.training.models import Base
from tuneahead.training.runs import Job, RunResult

RUNS_AT_ONCE = 8
RUNS_ON_A_GPU = 64


@dataclass(frozen=True)
class ProbeTask:
    """One data set and recipe to be probed, or run in full when the recipe has no early end.

    ``data`` are its rows as :func:`prepare_data` gives them, where somebody has them already.
    """

    name: str
    examples: Sequence[Example]
    recipe: Recipe
    finals: tuple[Benchmark, ...] = ()
    checkpoint_dir: Path | None = None
    resume_from: Path | None = None
    save_dir: Path | None = None
    data: RunData | None = None


def prepare_data(base: Base, examples: Sequence[Example], recipe: Recipe) -> RunData:
    """Encode and split; rows without a trainable answer are left out (preflight names them)."""
    return split_data(encode_rows(base, examples, recipe), data_fingerprint(examples))


def encode_rows(base: Base, examples: Sequence[Example], recipe: Recipe) -> list[Encoded]:
    """Every row in tokens, cut to the recipe's length, and to the base's window where that is shorter.

    Raises :class:`~tuneahead.errors.ModelError` for tokens that the model does not embed.
    """
    fitting = recipe.replace(max_length=max(2, min(recipe.max_length, base.context_tokens)))
    encoded = encode_examples(examples, base.tokenizer, fitting)
    base.require_known(row.ids for row in encoded)
    return encoded


def run_probes(
    base: Base,
    tasks: Sequence[ProbeTask],
    settings: ProbeSettings,
    *,
    width: int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[RunResult]:
    """Run all tasks in stacked passes of ``width`` runs; results in the order of the tasks.

    The default is eight on a processor, and 64 on other devices, where they take little longer than one.
    Raises :class:`~tuneahead.errors.DataError` for a data set without a trainable row.
    """
    jobs = []
    prepared: dict[tuple[int, str, int], RunData] = {}
    for index, task in enumerate(tasks):
        key = (id(task.examples), task.recipe.template, task.recipe.max_length)
        if key not in prepared:
            prepared[key] = task.data or prepare_data(base, task.examples, task.recipe)
            _require_answers(base, task, prepared[key])
        jobs.append(
            Job(
                str(index),
                prepared[key],
                task.recipe,
                task.finals,
                task.checkpoint_dir,
                task.resume_from,
                task.save_dir,
            )
        )
    width = width or (RUNS_AT_ONCE if base.device == "cpu" else RUNS_ON_A_GPU)
    results = {r.job_id: r for r in train_stack(base, jobs, settings, width=width, on_step=on_step)}
    return [results[str(index)] for index in range(len(tasks))]


def _require_answers(base: Base, task: ProbeTask, data: RunData) -> None:
    """Say it when every prompt fills the window, which is no defect of the answers."""
    if data.train or not any(example.answer.strip() for example in task.examples):
        return
    window = min(task.recipe.max_length, base.context_tokens)
    which = "max_length" if window == task.recipe.max_length else f"the window of {base.name!r}"
    raise DataError(
        f"no row of {len(task.examples)} leaves room for its answer in {window} tokens ({which})",
        remedy="shorten the prompts, "
        + ("raise max_length" if window < base.context_tokens else "or take a base with a longer window"),
    )


def run_probe(
    base: Base,
    examples: Sequence[Example],
    recipe: Recipe,
    settings: ProbeSettings,
    *,
    checkpoint_dir: Path | None = None,
    on_step: Callable[[int], None] | None = None,
) -> RunResult:
    """Probe one task for ``settings.record_steps`` steps (or as the recipe's ``stop_after`` says)."""
    steps = recipe.stop_after or settings.record_steps
    task = ProbeTask("probe", examples, recipe.probe(steps), checkpoint_dir=checkpoint_dir)
    return run_probes(base, [task], settings, width=1, on_step=on_step)[0]
