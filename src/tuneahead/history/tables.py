"""From stored runs to the table a predictor learns from. Everything here is derived, nothing measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneahead.counts import counted
from tuneahead.errors import StoreError
from tuneahead.features.catalogue import CATALOGUE, CATALOGUE_VERSION, names_of
from tuneahead.features.catalogue_static import STATIC_SECTIONS
from tuneahead.features.extract import derived_features
from tuneahead.features.vector import FeatureVector
from tuneahead.history.loggedrun import GAPPED_STEPS
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore
from tuneahead.predictor.table import (
    CUE_PREFIX,
    DATA_ROWS,
    EMBEDDING_PREFIX,
    FINAL_STEPS,
    PROXY,
    SIMILARITY_PREFIX,
    FeatureTable,
    Floats,
    outcome_column,
    proxy_column,
)
from tuneahead.trace import ProbeTrace

if TYPE_CHECKING:
    from tuneahead.benchmark.items import Benchmark
    from tuneahead.examples import Example
    from tuneahead.training.models import Base

EMBEDDING_VERSION = "embedding-1"
EMBEDDING_SIZE = 16
_LIKENESS = tuple(row.name for row in STATIC_SECTIONS["Likeness to the benchmark"])
_PROBED = ("assess", "trainer")
"""Origins of runs that a probe of ours recorded for as many steps as it was asked for."""


@dataclass(frozen=True)
class Task:
    """All stored seeds of one task on one base, first seed first."""

    records: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        """The run whose probe is looked at: a user has one probe, not the mean of several."""
        return self.records[0]


def tasks_of(store: RunStore, benchmark: str, probe_steps: int = 0) -> list[Task]:
    """Tasks with at least one score on ``benchmark``, in the order they were stored.

    Probes of ours that recorded fewer than ``probe_steps`` steps, of a run that has more, are left out, those
    that were asked ``benchmark`` at other steps only, and runs that were over when the probe was: nothing was
    left to foretell. Raises :class:`StoreError` where they were asked different benchmarks of that name.
    """
    grouped: dict[tuple[str, str], list[RunRecord]] = {}
    for record in store.records():
        if benchmark not in record.scores or record.failure or _tells_nothing(record, probe_steps):
            continue
        asked = _steps_asked(record, benchmark)
        if not (probe_steps and asked) or probe_steps in asked:
            grouped.setdefault((record.base, record.task_id), []).append(record)
    _require_one_benchmark(store, [record for own in grouped.values() for record in own], benchmark)
    return [Task(_seeds(records, benchmark)) for records in grouped.values()]


def _fingerprint(record: RunRecord, benchmark: str) -> str:
    """Which of the benchmarks of that name a run was asked; empty where it is not known."""
    info = record.trace.info
    return info.benchmark_fingerprint if info.benchmark == benchmark else ""


def _tells_nothing(record: RunRecord, probe_steps: int) -> bool:
    if not probe_steps:
        return False
    # An imported log has gaps by nature, and its features are absent where it has them; but one that was cut
    # for them is short all the same.
    recorded = len(record.trace.steps)
    is_short = recorded < probe_steps and (record.origin in _PROBED or recorded == GAPPED_STEPS)
    return is_short or record.trace.info.total_steps <= probe_steps


def _steps_asked(record: RunRecord, benchmark: str) -> set[int]:
    """Steps of training after which the run was asked the benchmark's items; of a log, none."""
    if record.trace.info.benchmark != benchmark:
        return set()
    return {cue.step for cue in record.trace.cues if cue.step > 0 and len(cue.margin_nats)}


def _seeds(records: Sequence[RunRecord], benchmark: str) -> tuple[RunRecord, ...]:
    """First seed first; a run that was probed several times counts once, by a probe of this benchmark."""
    kept: dict[int | str, RunRecord] = {}
    for record in sorted(records, key=lambda r: (r.seed, r.trace.info.benchmark != benchmark)):
        # Two logs with equal settings and no seed are two runs; two probes with one seed are one.
        kept.setdefault(record.seed if record.origin in _PROBED else record.run_id, record)
    return tuple(kept.values())


def table_from_store(
    store: RunStore,
    *,
    benchmark: str = "lab-exam",
    probe_steps: int = 100,
    proxies: RunStore | None = None,
) -> FeatureTable:
    """Features and outcomes of every task scored on ``benchmark``.

    Features come from the first seed's trace, cut to ``probe_steps``, and those of ``repeats`` from the
    further seeds'; the score is the mean over seeds. ``proxies`` is a store of the same tasks run on a
    smaller base (for ProxyLM). Static features are those kept in the store (see :func:`complete_statics`),
    absent otherwise, as is what a probe measured on another benchmark. Outcomes on other benchmarks the runs
    were scored on become extra columns (``FeatureTable.of_benchmark``). A probe of
    :func:`~tuneahead.assess` or of a Gate that was shorter than ``probe_steps`` is left out, for its features
    are those of another stage of the run; so is one that was asked the benchmark at other steps only, or of
    a run that had no further steps. Raises :class:`StoreError` when no task is left, and as
    :func:`tasks_of` does.
    """
    tasks = tasks_of(store, benchmark, probe_steps)
    if not tasks:
        if scored_tasks := tasks_of(store, benchmark):
            raise _no_probe(store, scored_tasks, benchmark, probe_steps)
        remedy = "record one (tuneahead runs record RUN --score 61.2) or make runs (tuneahead build)"
        scored = sorted({name for record in store.records() for name in record.scores})
        if scored:
            remedy = f"name a benchmark that runs have a score on ({', '.join(scored)}), or {remedy}"
        raise StoreError(f"no run in {store.path} has a score on {benchmark!r}", remedy=remedy)
    table = _table(store, tasks, benchmark, probe_steps, proxies)
    others = [Task(records) for task in tasks for records in _turned(task.records)]
    if others:
        table = replace(table, repeats=_table(store, others, benchmark, probe_steps, proxies))
    known = table.with_repeats().chance_pp
    known = known[np.isfinite(known)]
    return _guessing_at(table, float(np.median(known))) if len(known) else table


def _require_one_benchmark(store: RunStore, records: Sequence[RunRecord], benchmark: str) -> None:
    asked: dict[str, list[str]] = {}
    for record in records:
        asked.setdefault(_fingerprint(record, benchmark), []).append(record.run_id)
    asked.pop("", None)
    if len(asked) > 1:
        shown = "; ".join(
            f"{name} {counted(len(runs), 'run')} ({', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''})"
            for name, runs in asked.items()
        )
        raise StoreError(
            f"the runs in {store.path} with a score on {benchmark!r} were asked {len(asked)} benchmarks of "
            f"that name, whose items or metric differ: {shown}",
            remedy="keep the runs of each in a store of its own, or give each file a name of its own and "
            "assess again; what should not be there is deleted with: tuneahead runs forget RUN",
        )


def _no_probe(store: RunStore, tasks: Sequence[Task], benchmark: str, probe_steps: int) -> StoreError:
    """Why none of the tasks, which have scores, has a probe of ``probe_steps`` steps."""
    asked = [_steps_asked(task.first, benchmark) for task in tasks]
    ends = min(task.first.trace.info.total_steps for task in tasks)
    shared = sorted(step for step in set.intersection(*asked) if step < ends) if all(asked) else []
    lengths = f"all were asked at {', '.join(map(str, shared))}" if shared else "such as 50"
    return StoreError(
        f"every run in {store.path} with a score on {benchmark!r} was probed for fewer than {probe_steps} "
        f"steps, not asked the benchmark at step {probe_steps}, or over by then",
        remedy=f"assess with --probe-steps {probe_steps}, or fit with --probe-steps of another length "
        f"({lengths})",
    )


def _guessing_at(table: FeatureTable, chance_pp: float) -> FeatureTable:
    """The table with this score of guessing, which is the benchmark's, where a log did not say it."""
    filled = np.where(np.isfinite(table.chance_pp), table.chance_pp, chance_pp)
    repeats = None if table.repeats is None else _guessing_at(table.repeats, chance_pp)
    return replace(table, chance_pp=filled, repeats=repeats)


def _turned(records: tuple[RunRecord, ...]) -> list[tuple[RunRecord, ...]]:
    """The same records with each but the first in the first place."""
    return [(records[i], *records[:i], *records[i + 1 :]) for i in range(1, len(records))]


def _table(
    store: RunStore, tasks: Sequence[Task], benchmark: str, probe_steps: int, proxies: RunStore | None
) -> FeatureTable:
    """A row for each of ``tasks``: features of its first record's probe, outcomes of all its records."""
    vectors = [_vector(store, task.first, benchmark, probe_steps) for task in tasks]
    names = tuple(spec.name for spec in CATALOGUE)
    probes = [task.first.trace.truncate(probe_steps) for task in tasks]
    same = [task.first.trace.info.benchmark == benchmark for task in tasks]
    own = _outcomes(tasks, benchmark)
    asked = zip(probes, same, own["base_pp"], strict=True)
    base_pp = [_base_score_pp(probe, whole_pp) if on else whole_pp for probe, on, whole_pp in asked]
    extras = _extras(store, tasks, probes, same)
    # Of every seed's: the rows of further seeds must know the benchmarks that those of the tasks do.
    scored = {name for task in tasks for record in task.records for name in record.scores}
    for other in sorted(scored - {benchmark}):
        extras |= {outcome_column(other, key): column for key, column in _outcomes(tasks, other).items()}
        extras[proxy_column(other)] = _proxy_scores(proxies, tasks, other)
    extras[PROXY] = _proxy_scores(proxies, tasks, benchmark)
    return FeatureTable(
        names=names,
        values=np.array([vector.aligned(names) for vector in vectors]),
        probe_pp=np.array(
            [_probe_score_pp(p, probe_steps) if on else np.nan for p, on in zip(probes, same, strict=True)]
        ),
        chance_pp=np.array([p.info.chance_pp if on else np.nan for p, on in zip(probes, same, strict=True)]),
        task_ids=tuple(task.first.task_id for task in tasks),
        data_ids=tuple(task.first.data_id for task in tasks),
        families=tuple(task.first.family for task in tasks),
        bases=tuple(task.first.base for task in tasks),
        benchmarks=(benchmark,) * len(tasks),
        benchmark_fingerprints=tuple(_fingerprint(task.first, benchmark) for task in tasks),
        extras=extras,
        score_pp=own["score_pp"],
        base_pp=np.array(base_pp),
        seeds=own["seeds"],
        seed_sd_pp=own["seed_sd_pp"],
        probe_steps=probe_steps,
    )


def _outcomes(tasks: Sequence[Task], benchmark: str) -> dict[str, Floats]:
    """Score, base score, number of seeds and their standard deviation on a benchmark, ``(tasks,)`` each."""
    scores = [[r.scores[benchmark] for r in task.records if benchmark in r.scores] for task in tasks]
    return {
        "score_pp": np.array([np.mean(own) if own else np.nan for own in scores]),
        "base_pp": np.array([task.first.base_scores.get(benchmark, np.nan) for task in tasks]),
        "seeds": np.array([len(own) for own in scores], float),
        "seed_sd_pp": np.array([np.std(own, ddof=1) if len(own) > 1 else np.nan for own in scores]),
    }


def _proxy_scores(proxies: RunStore | None, tasks: Sequence[Task], benchmark: str) -> Floats:
    """What the proxy base scored on each task, ``(tasks,)``; NaN where it was not run."""
    found = tasks_of(proxies, benchmark) if proxies else []
    known = {task.first.task_id: _outcomes([task], benchmark)["score_pp"][0] for task in found}
    return np.array([known.get(task.first.task_id, np.nan) for task in tasks])


def _probe_score_pp(probe: ProbeTrace, probe_steps: int) -> float:
    """Score at the probe's very end, or NaN."""
    cue = probe.cue_at(probe_steps)
    return float("nan") if cue is None else cue.score_pp(probe.info.metric)


def _base_score_pp(probe: ProbeTrace, whole_pp: float) -> float:
    """The base's score on the cue items; ``whole_pp`` where none was taken.

    A large base is asked a part of the benchmark before and during training: what a predictor learns is a
    gain on that part, whatever the goal of a verdict counts from.
    """
    cue = probe.cue_at(0)
    return whole_pp if cue is None else cue.score_pp(probe.info.metric)


def static_version(benchmark: str, fingerprint: str = "") -> str:
    """Version under which a store keeps the static features that were measured against one benchmark.

    Some of them compare the data with it. Under ``CATALOGUE_VERSION`` alone stand those of whatever
    benchmark came last, and without ``fingerprint`` those of the last of that name.
    """
    return f"{CATALOGUE_VERSION} on {benchmark}" + (f" {fingerprint}" if fingerprint else "")


def _vector(store: RunStore, record: RunRecord, benchmark: str, probe_steps: int) -> FeatureVector:
    """Features of a run's probe and data.

    What another benchmark's items gave is absent: an assessment on this one would measure something else.
    """
    derived = derived_features(record.trace.truncate(probe_steps))
    exact = static_version(benchmark, _fingerprint(record, benchmark))
    static = store.static(record.data_id, record.base, exact)
    last = store.static(record.data_id, record.base, CATALOGUE_VERSION) if static is None else None
    probed_on = record.trace.info.benchmark
    if probed_on != benchmark:
        why = f"the probe was asked {probed_on}, not {benchmark}"
        derived = derived.without(dict.fromkeys(names_of("cue"), why))
        last = last and last.without(dict.fromkeys(_LIKENESS, why))
    static = static or last
    return derived if static is None else static.merged(derived)


def _extras(
    store: RunStore, tasks: Sequence[Task], probes: Sequence[ProbeTrace], same: Sequence[bool]
) -> dict[str, NDArray[np.float64]]:
    columns: dict[str, list[float]] = {DATA_ROWS: [], FINAL_STEPS: []}
    steps = sorted({cue.step for probe in probes for cue in probe.cues})
    kept = [store.static(task.first.data_id, task.first.base, EMBEDDING_VERSION) for task in tasks]
    others = sorted({name for vector in kept if vector is not None for name in vector.values})
    for probe, on, vector in zip(probes, same, kept, strict=True):
        rows = probe.info.train_rows
        # A log that does not tell the number of rows has 0.
        columns[DATA_ROWS].append(float(rows + probe.info.heldout_rows) if rows else np.nan)
        columns[FINAL_STEPS].append(float(probe.info.total_steps))
        for step in steps:
            cue = probe.cue_at(step)
            score = cue.score_pp(probe.info.metric) if cue and on else np.nan
            columns.setdefault(f"{CUE_PREFIX}{step}", []).append(score)
        for name in others:
            value = np.nan if vector is None else vector.values.get(name, np.nan)
            columns.setdefault(name, []).append(float(value))
    return {name: np.array(column, float) for name, column in columns.items()}


def complete_statics(
    store: RunStore,
    base: Base,
    benchmark: Benchmark,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Measure and keep the static features of every generated data set that lacks them; returns how many."""
    specs: dict[str, str] = {}
    for record in store.records():
        if record.base == base.name and can_be_made(record.data_spec):
            specs.setdefault(record.data_id, record.data_spec)
    missing = {data_id: text for data_id, text in specs.items() if not has_static(store, data_id, base.name)}
    for done, (data_id, text) in enumerate(missing.items(), start=1):
        examples = _examples(text)
        keep_static(store, data_id, base, examples, benchmark)
        if on_progress is not None:
            on_progress(done, len(missing))
    return len(missing)


def has_static(store: RunStore, data_id: str, base: str) -> bool:
    """Whether everything that :func:`keep_static` measures is kept: one that was killed kept a part."""
    versions = (CATALOGUE_VERSION, EMBEDDING_VERSION)
    return all(store.static(data_id, base, version) is not None for version in versions)


def keep_static(
    store: RunStore, data_id: str, base: Base, examples: Sequence[Example], benchmark: Benchmark
) -> None:
    """Measure one data set's static features and domain coordinates and keep them in the store."""
    from tuneahead.features.extract import static_features

    vector = static_features(examples, base=base, benchmarks=(benchmark,))
    store.add_static(data_id, base.name, CATALOGUE_VERSION, vector)
    store.add_static(data_id, base.name, EMBEDDING_VERSION, domain_columns(examples, benchmark))


def domain_columns(examples: Sequence[Example], benchmark: Benchmark) -> FeatureVector:
    """Where a data set lies: likeness to each subject of the benchmark, and a mean sentence vector.

    ``similarity@subject`` is the cosine of the mean prompt vectors; ``embedding@i`` the mean row
    vector under a fixed random projection to 16 numbers. For the baselines Domain-Proxy and
    COSMOS-like only; the predictor never sees them.
    """
    from tuneahead.features.rows import sample_rows
    from tuneahead.features.semantic import embed

    rows = sample_rows(tuple(examples), 1000)
    prompts = _centre(embed([row.prompt or row.answer for row in rows]))
    values = {}
    for subject in sorted({item.subject for item in benchmark.items}):
        items = [item.prompt for item in benchmark.items if item.subject == subject]
        values[f"{SIMILARITY_PREFIX}{subject}"] = float(prompts @ _centre(embed(items)))
    whole = _centre(embed([f"{row.prompt} {row.answer}" for row in rows]))
    projection = np.random.default_rng(0).normal(size=(len(whole), EMBEDDING_SIZE)) / np.sqrt(EMBEDDING_SIZE)
    values |= {f"{EMBEDDING_PREFIX}{i:02d}": float(v) for i, v in enumerate(whole @ projection)}
    return FeatureVector(values)


def _centre(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    known = vectors[np.isfinite(vectors).all(1)]
    mean = known.mean(0) if len(known) else np.zeros(vectors.shape[1])
    return np.asarray(mean / max(1e-12, float(np.linalg.norm(mean))))


def can_be_made(data_spec: str) -> bool:
    """Whether rows follow from the spec alone; of real questions the build keeps the features itself."""
    return bool(data_spec) and "source" not in json.loads(data_spec)


def _examples(text: str) -> list[Example]:
    from tuneahead.build.execute import lab_examples
    from tuneahead.lab.datasets import DatasetSpec

    return lab_examples(DatasetSpec.from_json(text))
