"""What tasks are judged on, loaded once: base model, benchmark, probe settings and predictor."""

from __future__ import annotations

import math
import random
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.errors import BenchmarkError, ModelError, PredictorError, TuneAheadError
from tuneahead.predictor.packaged import PROBE_STEPS, SHIPPED_BASE, shipped_bases, shipped_predictor
from tuneahead.watch import SILENT, Watch

if TYPE_CHECKING:
    from tuneahead.benchmark.items import Benchmark
    from tuneahead.predictor.predictor import Predictor
    from tuneahead.training.measure import ProbeSettings
    from tuneahead.training.models import Base

LEAST_PROBE_STEPS = 5
MOST_CUE_ITEMS = 1000
MOST_CUE_ANSWERS = 200
"""Items asked in passing whose answers are written out, at the price of a pass for every token."""
CUE_SEED = 41
LARGE_BASE_CUE_ITEMS = 200
LARGE_BASE_CUE_STEPS = (0, 50, 100)
TASK_FILES = (".yaml", ".yml")
"""Endings of task files of lm-evaluation-harness; the rows of such a task lie elsewhere."""
UNNAMED_BASE = "lab"
"""The base that stands in where none was named."""
RUNS = "runs.sqlite"
"""The store that is named where nobody has named one."""
FITTED = "predictor"
"""The folder that ``tuneahead fit`` writes where nobody has named one."""


@dataclass(frozen=True)
class Setup:
    """Names of what a task is judged on.

    ``base`` is ``lab`` (the packaged tiny model), ``smollm2`` (see docs/models.md), a folder, a GGUF
    file or a hub id; None, where none was named, has the lab's stand in, and ``check`` then leaves out
    what depends on a tokenizer. ``benchmark`` is ``lab-exam``, ``lab-truth``, ``lab-generation``, a
    file of items, or a task of lm-evaluation-harness (see :func:`find_benchmark`); ``predictor`` is a
    folder that ``tuneahead fit`` wrote, empty for the shipped one. ``probe_steps`` counts optimiser steps.
    ``precision`` is a recipe's and ``device`` auto, cpu, cuda or mps.
    ``price_per_hour`` of the machine, in any currency, has times shown in money too (NaN: not).
    Without ``weights`` a base's tokenizer and layers are read and no more, which serves ``check`` alone.
    """

    base: str | Path | None = None
    benchmark: str | Path = "lab-exam"
    predictor: str | Path = ""
    probe_steps: int = PROBE_STEPS
    precision: str = "auto"
    device: str = "auto"
    price_per_hour: float = math.nan
    weights: bool = True

    @property
    def base_name(self) -> str:
        """The base to load."""
        return UNNAMED_BASE if self.base is None else str(self.base)


@dataclass(frozen=True, eq=False)
class Workbench:
    """The loaded parts of a :class:`Setup`; open one with :func:`open_workbench` and use it for many tasks.

    ``predictor`` is None when none knows this base and benchmark; ``predictor_absent`` says why.
    """

    setup: Setup
    base: Base
    benchmark: Benchmark
    predictor: Predictor | None
    predictor_absent: str

    def settings(self, lengths: Iterable[int]) -> ProbeSettings:
        """What probes of these lengths record; a cue is taken at the end of each.

        A probe has no cue at the ends of others: its features would depend on what it is compared with. Of a
        longer probe flatness is taken where the usual one ends, as it was of the runs that are shipped.
        """
        from tuneahead.lab.exam import reference_statements
        from tuneahead.training.measure import ProbeSettings

        ends = set(lengths)
        steps = max(ends)
        usual = tuple(step for step in cue_steps(self.base) if step < steps)
        return ProbeSettings(
            record_steps=steps,
            cue_steps=(*usual, steps),
            cue_benchmark=cue_items(self.benchmark, self.base),
            reference_texts=tuple(reference_statements()),
            flatness_at=min(steps, PROBE_STEPS),
            each_end=len(ends) > 1,
        )


def cue_steps(base: Base) -> tuple[int, ...]:
    """Steps at which a probe asks in passing; a large base, whose cues cost most, is asked less often."""
    from tuneahead.training.measure import ProbeSettings

    return LARGE_BASE_CUE_STEPS if base.is_large else ProbeSettings().cue_steps


def cue_items(benchmark: Benchmark, base: Base | None = None) -> Benchmark:
    """The items asked in passing: all of them, or one of every equal stretch of a longer benchmark.

    It is drawn by a fixed seed, since a file may repeat a pattern (two languages in turn, say) at whose
    pace an even selection would always meet the same one; of the built-in benchmarks, which have none, it
    stands at the same place of each stretch.
    A large base is asked some 200: three cues of the whole lab-exam would take longer than the probe.
    """
    from tuneahead.benchmark.files import BUILT_IN
    from tuneahead.benchmark.items import WRITTEN

    count = len(benchmark.items)
    stride = round(count / LARGE_BASE_CUE_ITEMS)
    built_in = benchmark.name in BUILT_IN
    if base is not None and base.is_large and stride > 1:
        if not built_in:
            return _drawn(benchmark, count // stride)
        # Of the lab's exam: 206 questions, ten a subject, on which SmolLM2 scores 40.8 (all: 41.1).
        return replace(benchmark, items=tuple(benchmark.items[stride // 4 :: stride]))  # type: ignore[arg-type]
    most = MOST_CUE_ANSWERS if benchmark.metric in (*WRITTEN, "harness") else MOST_CUE_ITEMS
    if count <= most:
        return benchmark
    if not built_in:
        return _drawn(benchmark, most)
    kept = tuple(benchmark.items[i * count // most] for i in range(most))
    return replace(benchmark, items=kept)  # type: ignore[arg-type]


def _drawn(benchmark: Benchmark, size: int) -> Benchmark:
    """One item drawn from each of ``size`` equal stretches."""
    draw, count = random.Random(CUE_SEED), len(benchmark.items)
    places = [draw.randrange(i * count // size, (i + 1) * count // size) for i in range(size)]
    kept = tuple(benchmark.items[place] for place in places)
    return replace(benchmark, items=kept)  # type: ignore[arg-type]


def open_workbench(
    setup: Setup = Setup(), *, forecasts: bool = True, store: str = RUNS, watch: Watch = SILENT
) -> Workbench:
    """Load base and benchmark, and the predictor where ``forecasts`` are wanted.

    ``store`` is the file of runs that is named where no predictor knows them yet; ``watch`` is told when the
    base is fetched and loaded. Raises ModelError, BenchmarkError or PredictorError, and TuneAheadError for an
    impossible price.
    """
    from tuneahead.predictor.predictor import load_predictor

    require_probe_steps(setup.probe_steps)
    require_price(setup.price_per_hour)
    if not setup.weights:
        raise ModelError(
            "a base without its weights can't be trained or asked", remedy="leave weights=False to check"
        )
    benchmark = find_benchmark(setup.benchmark)
    # Before the base, which may take minutes to fetch: a folder without a predictor is an error.
    given = load_predictor(setup.predictor) if forecasts and setup.predictor else None
    from tuneahead.training.models import load_base

    watch.stage(f"Loading base {setup.base_name}")
    base = load_base(setup.base_name, precision=setup.precision, device=setup.device, watch=watch)
    predictor, absent = None, "no predictor was loaded"
    if forecasts:
        predictor, absent = find_predictor(given, base.name, benchmark.name, store, benchmark.identity)
    return Workbench(setup, base, benchmark, predictor, absent)


def open_outline(setup: Setup) -> Workbench:
    """The benchmark, and of the base its tokenizer and layers; raises ModelError or BenchmarkError."""
    from tuneahead.training.models import outline_base

    if setup.base is None:
        raise ModelError(
            "it is not said whose tokenizer and layers to read without weights", remedy="name a base (--base)"
        )
    benchmark = find_benchmark(setup.benchmark)
    return Workbench(setup, outline_base(setup.base_name), benchmark, None, "no predictor was loaded")


def find_benchmark(name: str | Path) -> Benchmark:
    """A lab benchmark, the items of a file, or a task of lm-evaluation-harness (extra ``lm-eval``).

    A task is named as the harness names it (``mmlu``, ``gsm8k``) or by its YAML file, with a metric of
    its own after a colon if the first one is not meant (``hellaswag:acc_norm``). Raises
    :class:`BenchmarkError`.
    """
    from tuneahead.benchmark import lm_eval
    from tuneahead.benchmark.files import BUILT_IN, read_benchmark
    from tuneahead.lab import exam

    name = str(name)
    makers = (exam.lab_exam, exam.lab_truth, exam.lab_generation)
    made = dict(zip(BUILT_IN, makers, strict=True))
    if name in made:
        return made[name]()
    if Path(name).suffix and Path(name).suffix not in TASK_FILES and not _names_task_file(name):
        return read_benchmark(name)
    # The harness takes seconds to list its thousands of tasks; a misspelt name of ours need not wait.
    if lm_eval.installed() and not name.startswith("lab"):
        task, _, metric = name.rpartition(":")
        # One letter before the colon is a drive.
        return lm_eval.harness_benchmark(task, metric) if len(task) > 1 else lm_eval.harness_benchmark(name)
    raise BenchmarkError(
        f"unknown benchmark {name!r}",
        remedy=f"use one of {', '.join(made)}, the path of a JSONL file of items, or (with pip install "
        "'tuneahead[lm-eval]') a task of lm-evaluation-harness such as hellaswag",
    )


def _names_task_file(name: str) -> bool:
    return Path(name.rpartition(":")[0]).suffix in TASK_FILES


def find_predictor(
    given: Predictor | None, base: str, benchmark: str, store: str = RUNS, fingerprint: str = ""
) -> tuple[Predictor | None, str]:
    """The predictor that was given if it knows this base and benchmark, else why not.

    None stands for the one shipped for this base, and where there is none the lab's. Source:
    method.md, "From one base and benchmark to another": with no row of its own, a base gets no forecast.
    ``fingerprint`` tells benchmarks of one name apart.
    """
    predictor, absent = (given, "") if given is not None else shipped_for(base)
    if predictor is None:
        return None, absent
    if absent := why_unknown(predictor, base, benchmark, fingerprint):
        if misnamed := why_misnamed(base, predictor.origin.bases):
            return None, f"{absent}, {misnamed}"
        keep = "keep your runs, on nine data sets or more, with --store, record their scores, then"
        use = f"then assess with --predictor {FITTED}"
        return None, f"{absent}; {keep} {fit_command(benchmark, store)}, {use}"
    return predictor, ""


def why_misnamed(base: str, known: Collection[str]) -> str:
    """The end of a sentence, where ``base`` and a base among ``known`` are names of one folder; else empty.

    A base is known by the words it was given in, and ``./my-model`` may come back as ``my-model/``.
    """
    if base in known or not Path(base).is_dir():
        return ""
    names = (name for name in known if Path(name).is_dir() and Path(name).samefile(base))
    return next((f"which is the same folder: name the base {name}, as its runs do" for name in names), "")


def shipped_for(base: str) -> tuple[Predictor | None, str]:
    """The predictor shipped for this base, else the lab's; None and why where the package has neither."""
    from tuneahead.predictor.predictor import load_predictor

    folder = shipped_predictor(base if base in shipped_bases() else SHIPPED_BASE)
    if not folder.is_dir():
        return None, "this installation ships no predictor"
    return load_predictor(folder), ""


def why_unknown(predictor: Predictor, base: str, benchmark: str, fingerprint: str = "") -> str:
    """Why ``predictor`` gives this base and benchmark no forecast; empty where it does."""
    origin = predictor.origin
    for kind, name, known in (("base", base, origin.bases), ("benchmark", benchmark, origin.benchmarks)):
        if name not in known:
            return f"the predictor has seen no run of {kind} {name} (it knows {', '.join(known) or 'none'})"
    # Of several benchmarks it is not told which one a fingerprint is of.
    ours = origin.benchmark_fingerprints if len(origin.benchmarks) == 1 else ()
    if fingerprint and ours and fingerprint not in ours:
        return f"the predictor knows another benchmark named {benchmark}, whose items or metric differ"
    return ""


def fit_command(benchmark: str, store: str = RUNS) -> str:
    """How a predictor is fitted to runs of one's own, in quotes."""
    named = f"--store {shlex.quote(store)} --benchmark {shlex.quote(benchmark)}"
    return f"'tuneahead fit {named} --start shipped'"


def require_price(per_hour: float) -> float:
    """Check a price an hour, NaN for none; raises :class:`TuneAheadError` unless it is above 0."""
    if per_hour <= 0 or math.isinf(per_hour):
        raise TuneAheadError(
            f"a price of {per_hour:g} an hour is none", remedy="give a number above 0, such as 2.49"
        )
    return per_hour


def require_probe_steps(steps: int) -> int:
    """Check a probe's length; raises :class:`PredictorError` below five steps."""
    if steps < LEAST_PROBE_STEPS:
        raise PredictorError(
            f"a probe of {steps} steps tells nothing, {LEAST_PROBE_STEPS} are the least",
            remedy=f"use 50 to 200; shipped predictors forecast from {PROBE_STEPS}",
        )
    return steps
