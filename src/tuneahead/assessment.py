"""What a look at one task found: the values that are shown, saved and compared."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuneahead.errors import TraceError, TuneAheadError, why_unreadable
from tuneahead.features.sampling import Sample, StaticFeatures
from tuneahead.features.vector import FeatureVector
from tuneahead.recipe import Recipe, make_recipe
from tuneahead.trace import ProbeTrace, trace_from_bytes
from tuneahead.verdict import Attribution, Finding, Fix, Forecast, Goal, Verdict, first_stop
from tuneahead.wholefile import write_whole

SCHEMA = 1
NAN = math.nan

_Saved = typing.TypeVar("_Saved")


@dataclass(frozen=True)
class DataSummary:
    """The data set in figures. Tokens are the base's own, after cutting rows to the window.

    ``samples`` says which static features, and which of the two token counts, come from a random
    sample of the rows, how large it was and how far off they may be. ``columns`` names the column that
    each part was read from, ``unused_columns`` those that were not read; both may be empty.
    """

    path: str
    format: str
    rows: int
    fingerprint: str
    tokens: float = NAN
    answer_tokens: float = NAN
    samples: Mapping[str, Sample] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    unused_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskInfo:
    """What the data set is judged on: base, benchmark and lengths in optimiser steps.

    ``benchmark_fingerprint`` is empty where the benchmark's name tells it from all others.
    """

    base: str
    base_fingerprint: str
    benchmark: str
    benchmark_items: int
    chance_pp: float
    probe_steps: int
    total_steps: int
    train_rows: int
    heldout_rows: int
    device: str = "cpu"
    benchmark_fingerprint: str = ""


@dataclass(frozen=True)
class Costs:
    """Wall-clock seconds; ``full_run_seconds`` is foreseen of its training, from the probe's own steps.

    It is the least it can be where ``full_run_is_least``: in probes that shared a processor's passes.
    ``price_per_hour`` of the machine is in the user's currency, NaN where it was not given.
    """

    check_seconds: float = NAN
    probe_seconds: float = NAN
    full_run_seconds: float = NAN
    price_per_hour: float = NAN
    full_run_is_least: bool = False


@dataclass(frozen=True)
class FeatureRange:
    """Least and greatest value of one feature over the predictor's training tasks."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies inside; an absent one does not stand out."""
        return math.isnan(value) or self.low <= value <= self.high


@dataclass(frozen=True)
class Outcome:
    """What the full run really scored, when it was made (``--verify``); NaN where it has no score.

    ``seconds`` are those of training, of a probe that it went on from too, and of scoring.
    """

    score_pp: float
    steps: int
    seconds: float
    adapter: str = ""
    adapter_absent: str = ""
    """Why the adapter, though it was asked for, was not stored."""
    failure: str = ""
    """Why the run ended early, without a score; empty where it did not."""

    @property
    def unscored(self) -> str:
        """Why there is no score, as the end of a sentence about the full run; empty where there is one."""
        if math.isfinite(self.score_pp):
            return ""
        return f"ended early: {self.failure}" if self.failure else "has no finite score"


@dataclass(frozen=True)
class Checkup:
    """Preflight findings and static features of a data set: everything known without training.

    ``base`` and ``benchmark`` name what the features that need them were measured against. Without
    ``base_named`` the base is the lab's, which stood in for one that nobody named, and no finding or token
    count comes from its tokenizer or layers.
    """

    data: DataSummary
    recipe: Recipe
    findings: tuple[Finding, ...]
    features: FeatureVector = field(repr=False)
    costs: Costs = Costs()
    base: str = ""
    base_named: bool = True
    benchmark: str = ""
    created: str = ""
    version: str = ""

    @property
    def stopped(self) -> bool:
        """True when a finding makes training pointless."""
        return first_stop(self.findings) is not None

    def to_json(self) -> str:
        """JSON text that :func:`checkup_from_json` reads back; absent figures are null."""
        return _dump("checkup", self)

    def _repr_html_(self) -> str:
        """The page, where a notebook shows a checkup."""
        from tuneahead.report import framed_html

        return framed_html(self)


@dataclass(frozen=True)
class Assessment:
    """Everything found out about one task before its full run; scores in percentage points.

    ``forecast`` is None when the run was stopped by preflight or when no predictor knows this
    base and benchmark; ``forecast_absent`` then says why. ``baseline_pp`` plus all contributions
    of ``attributions`` is ``forecast.score_pp``. ``hard_rows`` are file rows that stayed
    unlikely throughout the probe, worst first. ``base_pp`` and ``probe_pp`` are scores on the items that the
    probe asked, ``base_of_all_pp`` is the base's on every item where it was asked them too.
    Source: method.md, "The question".
    """

    task: TaskInfo
    data: DataSummary
    recipe: Recipe
    goal: Goal
    findings: tuple[Finding, ...]
    features: FeatureVector = field(repr=False)
    verdict: Verdict
    base_pp: float = NAN
    probe_pp: float = NAN
    forecast: Forecast | None = None
    forecast_absent: str = ""
    baseline_pp: float = NAN
    attributions: tuple[Attribution, ...] = field(default=(), repr=False)
    fixes: tuple[Fix, ...] = ()
    ranges: Mapping[str, FeatureRange] = field(default_factory=dict, repr=False)
    hard_rows: tuple[int, ...] = ()
    costs: Costs = Costs()
    trace: ProbeTrace | None = field(default=None, repr=False)
    outcome: Outcome | None = None
    created: str = ""
    version: str = ""
    base_of_all_pp: float = NAN

    @property
    def complete(self) -> bool:
        """Whether the probe was the whole run, so that its score is the final one."""
        return self.trace is not None and 0 < self.task.total_steps <= self.task.probe_steps

    @property
    def final_pp(self) -> float:
        """The run's own final score, where it is known: measured after the probe, or at the end of a probe
        that was the whole run and asked every item of the benchmark; NaN otherwise."""
        if self.outcome is not None and math.isfinite(self.outcome.score_pp):
            return self.outcome.score_pp
        done = self.complete and self.trace is not None and not self.trace.info.failure
        return self.probe_pp if done and self.items_asked >= self.task.benchmark_items else NAN

    @property
    def items_asked(self) -> int:
        """How many of the benchmark's items were asked at the end of the probe."""
        cue = self.trace.cue_at(self.task.probe_steps) if self.trace else None
        return 0 if cue is None else len(cue.margin_nats)

    @property
    def counts_from_pp(self) -> float:
        """The base's score that gains count from: on every item if that is known, else on those asked."""
        return self.base_of_all_pp if math.isfinite(self.base_of_all_pp) else self.base_pp

    def error_pp(self, score_pp: float) -> float:
        """Standard error, as one on every item, of a score on the items asked: 0 where those are all.

        It is that of right and wrong answers; of scores between 0 and 1 it is the most. Two answers of each
        kind are added (Agresti and Coull): all wrong so far does not mean that every item will be.
        """
        asked, items = self.items_asked, self.task.benchmark_items
        if not 0 < asked < items:
            return 0.0
        if not math.isfinite(score_pp):
            return NAN
        share = (min(1.0, max(0.0, score_pp / 100)) * asked + 2) / (asked + 4)
        return 100 * math.sqrt(share * (1 - share) / (asked + 4) * (1 - asked / items))

    def to_json(self) -> str:
        """JSON text that :func:`assessment_from_json` reads back; absent figures are null."""
        return _dump("assessment", self)

    def _repr_html_(self) -> str:
        """The page, where a notebook shows an assessment."""
        from tuneahead.report import framed_html

        return framed_html(self)

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_json` to a file, whole or not at all; raises OSError."""
        write_whole(Path(path), f"{self.to_json()}\n".encode())


def assessment_from_json(text: str) -> Assessment:
    """Read an assessment from its JSON text; raises :class:`TuneAheadError` on anything else."""
    return _load(text, "assessment", Assessment, "tuneahead assess --json")


def checkup_from_json(text: str) -> Checkup:
    """Read a checkup from its JSON text; raises :class:`TuneAheadError` on anything else."""
    return _load(text, "checkup", Checkup, "tuneahead check --json")


def static_to_json(static: StaticFeatures) -> str:
    """JSON text that :func:`static_from_json` reads back."""
    return _dump("static", static)


def static_from_json(text: str) -> StaticFeatures:
    """Read static features from their JSON text; raises :class:`TuneAheadError` on anything else."""
    return _load(text, "static", StaticFeatures, "tuneahead assess")


def read_assessment(path: str | Path) -> Assessment:
    """Read an assessment from a JSON file; raises :class:`TuneAheadError`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = why_unreadable(error)
        raise TuneAheadError(f"can't read assessment {path}: {why}", remedy="check the path") from None
    try:
        return assessment_from_json(text)
    except TuneAheadError as error:
        raise TuneAheadError(f"{path}: {error.message}", remedy=error.remedy) from None


def _load(text: str, kind: str, wanted: type[_Saved], command: str) -> _Saved:
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("kind") != kind:
            raise ValueError(f"no field 'kind' with the value '{kind}'")
        if document.get("schema") != SCHEMA:
            raise ValueError(f"schema {document.get('schema')}, this version reads {SCHEMA}")
        return typing.cast(_Saved, _decode(wanted, document[kind]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, TraceError) as error:
        raise TuneAheadError(
            f"not a saved {kind}: {error}", remedy=f"give a file that '{command}' wrote"
        ) from None


def _dump(kind: str, value: object) -> str:
    return json.dumps({"kind": kind, "schema": SCHEMA, kind: _encode(value)}, indent=1, allow_nan=False)


def _encode(value: object) -> object:
    """Plain JSON values. NaN becomes null; infinities become text, as JSON has no number for them."""
    if isinstance(value, Recipe):
        return value.model_dump(mode="json")
    if isinstance(value, ProbeTrace):
        return base64.b64encode(value.to_bytes()).decode("ascii")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(value) if math.isfinite(value) else str(value)
    return value


def _decode(kind: object, value: object) -> object:
    """The inverse of :func:`_encode`, led by the declared type: null is NaN only where a float stands."""
    if kind is float:
        return NAN if value is None else float(typing.cast("float | str", value))
    if kind is Recipe:
        return make_recipe(_fields(value))
    if kind is ProbeTrace:
        return _decode_trace(value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        known = {name: item for name, item in _fields(value).items() if name in hints}
        return kind(**{name: _decode(hints[name], item) for name, item in known.items()})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if value not in inner:
            raise ValueError(f"{str(value)[:40]!r} is none of {', '.join(map(str, inner))}")
        return value
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _decode(inner[0], value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"expected a list, found {type(value).__name__}")
        return tuple(_decode(inner[0], item) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: _decode(inner[1], item) for name, item in _fields(value).items()}
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value


def _fields(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    return value


def _decode_trace(value: object) -> ProbeTrace:
    if not isinstance(value, str):
        raise TypeError(f"expected a trace as text, found {type(value).__name__}")
    try:
        return trace_from_bytes(base64.b64decode(value, validate=True))
    except binascii.Error as error:
        raise TraceError(f"the trace is not base64: {error}", remedy="run the probe again") from None
