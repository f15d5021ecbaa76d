"""From stored runs to the table a predictor learns from. Everything here is derived, nothing measured."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneahead.errors import StoreError
from tuneahead.features.catalogue import CATALOGUE, CATALOGUE_VERSION, names_of
from tuneahead.features.catalogue_static import STATIC_SECTIONS
from tuneahead.features.dynamics import HELDOUT_AT_END
from tuneahead.features.extract import derived_features
from tuneahead.features.vector import FeatureVector
from tuneahead.history.runrecord import RunRecord
from tuneahead.history.store import RunStore
from tuneahead.history.tasks import Task, fingerprint_of, no_probe, tasks_of
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
            raise no_probe(store, scored_tasks, benchmark, probe_steps)
        remedy = (
            f"record one: {store.command('record RUN --score 61.2 --benchmark ' + shlex.quote(benchmark))}"
        )
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
        benchmark_fingerprints=tuple(fingerprint_of(task.first, benchmark) for task in tasks),
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
    probe = record.trace.truncate(probe_steps)
    derived = derived_features(probe)
    if record.origin == "import":
        derived = derived.without(_not_at_end(probe, probe_steps))
    exact = static_version(benchmark, fingerprint_of(record, benchmark))
    static = store.static(record.data_id, record.base, exact)
    last = store.static(record.data_id, record.base, CATALOGUE_VERSION) if static is None else None
    probed_on = record.trace.info.benchmark
    if probed_on != benchmark:
        why = f"the probe was asked {probed_on}, not {benchmark}"
        derived = derived.without(dict.fromkeys(names_of("cue"), why))
        last = last and last.without(dict.fromkeys(_LIKENESS, why))
    static = static or last
    return derived if static is None else static.merged(derived)


def _not_at_end(probe: ProbeTrace, probe_steps: int) -> dict[str, str]:
    """Held-out features that a log does not give, with the reason: it has steps of its own for its looks."""
    cue = probe.cue_at(probe_steps)
    if cue is not None and np.isfinite(cue.heldout_loss_nats):
        return {}
    return dict.fromkeys(HELDOUT_AT_END, f"the log has no held-out loss of step {probe_steps}")


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
    missing = unmeasured(store).get(base.name, {})
    for done, (data_id, text) in enumerate(missing.items(), start=1):
        examples = _examples(text)
        keep_static(store, data_id, base, examples, benchmark)
        if on_progress is not None:
            on_progress(done, len(missing))
    return len(missing)


def unmeasured(store: RunStore) -> dict[str, dict[str, str]]:
    """Generated data sets without static features: by base, the spec of each by its identifier."""
    found: dict[str, dict[str, str]] = {}
    for base, data_id, spec in store.generated():
        if can_be_made(spec) and not has_static(store, data_id, base):
            found.setdefault(base, {})[data_id] = spec
    return found


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
