"""The probe trace: what was measured while a run trained, never what was derived from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneahead.benchmark.choice import right_or_wrong
from tuneahead.benchmark.items import GRADED
from tuneahead.errors import RecipeError, TraceError
from tuneahead.recipe import Recipe, make_recipe

SCHEMA = 1
SKIPPED = "gradients"
"""Names, among what is absent, the gradients of steps that fp16's scaler skipped: their norms are NaN."""
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class StepColumns:
    """One value per optimiser step, in order of the steps. Absent measurements are NaN.

    In a trace made from a log, which holds mean losses only, ``answer_tokens`` is 1 at every step with
    a loss: steps count alike.

    ``layer_grad_norm`` is ``(steps, layers)``; everything else ``(steps,)``.
    """

    loss_sum_nats: Floats
    answer_tokens: Floats
    learning_rate: Floats
    grad_norm: Floats
    """L2 norm of the adapter's gradient before clipping."""
    dot_previous: Floats
    """Inner product with the previous step's gradient."""
    dot_mean: Floats
    """Inner product with the running mean of the gradients before this step."""
    mean_norm: Floats
    """Norm of that running mean (exponential, decay 0.9)."""
    small_gradients: Floats
    """Count of gradient entries below 1 % of their root mean square."""
    update_norm: Floats
    distance: Floats
    """Norm of the adapter minus its initial value."""
    seconds: Floats
    peak_memory_mb: Floats
    layer_grad_norm: Floats

    def __len__(self) -> int:
        return len(self.loss_sum_nats)

    @property
    def loss_nats(self) -> NDArray[np.float64]:
        """Mean loss per answer token of each step, in nats."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: NDArray[np.float64] = self.loss_sum_nats.astype(float) / self.answer_tokens.astype(float)
        return ratio


@dataclass(frozen=True)
class RowVisits:
    """Every visit of a training row during the recorded steps: all arrays ``(visits,)``.

    ``row`` is the index into the training rows, ``nll_nats`` the summed loss of its answer
    just before the step's update, so ``exp(-nll_nats)`` is the answer's probability.
    """

    step: Ints
    row: Ints
    nll_nats: Floats
    tokens: Ints


@dataclass(frozen=True)
class Cue:
    """Scores taken in passing at one step. Losses are nats per token; absent is NaN.

    ``right_probability`` and ``margin_nats`` are ``(items,)``: the probability of the right
    options among all options, and the log-probability of the best right option minus that of
    the best wrong one (the item is right when it is above 0).
    """

    step: int
    heldout_loss_nats: float
    reference_loss_nats: float
    right_probability: Floats
    margin_nats: Floats
    seconds: float = float("nan")
    total_pp: float = float("nan")
    """The benchmark's score where only that is known and no item's: in traces made from a log."""

    @property
    def accuracy_pp(self) -> float:
        """Share of items answered right, in percentage points; NaN without items."""
        return self.score_pp("accuracy")

    def item_scores(self, metric: str) -> NDArray[np.float64]:
        """Score of each item under the benchmark's ``metric``, ``(items,)``, 0 to 1.

        MC2 takes the probability of the right options, F1, ROUGE-L and the harness's metrics the
        item's own grade, which stands in its place; accuracy and exact match whether the item is
        right (margins of free answers run from -1 to 1). NaN where the model's answer is no number.
        """
        return np.asarray(
            self.right_probability if metric in GRADED else right_or_wrong(self.margin_nats), np.float64
        )

    def score_pp(self, metric: str) -> float:
        """The benchmark's own ``metric`` over the items, in percentage points; without items ``total_pp``."""
        scores = self.item_scores(metric)
        # Multiplied first: 57 of 100 are 57 points, 100 times their mean is a little less.
        return float(100.0 * scores.sum() / len(scores)) if len(scores) else self.total_pp


@dataclass(frozen=True)
class Flatness:
    """Loss under random perturbations of the adapter at the probe's end.

    ``centre_nats`` is the unperturbed loss per token on the same rows; ``perturbed_nats`` is
    ``(radii, directions)``; each direction is scaled to ``radius`` times the norm of each
    adapter matrix.
    """

    step: int
    centre_nats: float
    radii: Floats
    perturbed_nats: Floats


@dataclass(frozen=True)
class TraceInfo:
    """Where a trace comes from: enough to compare, to group and to run it again."""

    base: str
    base_fingerprint: str
    data_fingerprint: str
    recipe: Recipe
    total_steps: int
    train_rows: int
    heldout_rows: int
    parameters: int
    layers: tuple[str, ...]
    benchmark: str = ""
    item_subjects: tuple[str, ...] = ()
    """Subject of each cue item, in the order of the cue arrays."""
    chance_pp: float = 0.0
    """Score of guessing; NaN in traces made from a log where nobody said it."""
    failure: str = ""
    """Empty, or what ended the run early (a loss that was not finite, for instance) and at which step."""
    versions: tuple[tuple[str, str], ...] = ()
    device: str = "cpu"
    metric: str = "accuracy"
    """How the benchmark of the cues is scored; traces made before it was recorded read as accuracy."""
    schema: int = SCHEMA
    benchmark_fingerprint: str = ""
    """Of the whole benchmark that the cue items are of; empty where it is not known, or the name tells it."""


@dataclass(frozen=True)
class ProbeTrace:
    """The raw record of a probe. Features are pure functions of it."""

    info: TraceInfo
    steps: StepColumns = field(repr=False)
    visits: RowVisits = field(repr=False)
    cues: tuple[Cue, ...] = field(repr=False)
    flatness: Flatness | None = None
    absent: tuple[tuple[str, str], ...] = field(default=())
    """Pairs (measurement, reason) for what this trace does not hold."""

    def cue_at(self, step: int) -> Cue | None:
        """The cue taken at ``step``, or None."""
        return next((cue for cue in self.cues if cue.step == step), None)

    def truncate(self, steps: int) -> ProbeTrace:
        """The trace as it stood after ``steps`` steps; flatness is kept only if taken by then."""
        keep = self.visits.step < steps
        return replace(
            self,
            steps=StepColumns(**{f.name: getattr(self.steps, f.name)[:steps] for f in fields(StepColumns)}),
            visits=RowVisits(**{f.name: getattr(self.visits, f.name)[keep] for f in fields(RowVisits)}),
            cues=tuple(cue for cue in self.cues if cue.step <= steps),
            flatness=self.flatness if self.flatness and self.flatness.step <= steps else None,
        )

    def to_bytes(self) -> bytes:
        """Serialise as safetensors: arrays as tensors, the rest as JSON in the header."""
        from safetensors.numpy import save

        arrays: dict[str, NDArray[np.generic]] = {}
        for f in fields(StepColumns):
            arrays[f"steps.{f.name}"] = np.ascontiguousarray(getattr(self.steps, f.name), np.float32)
        arrays["visits.step"] = self.visits.step.astype(np.int32)
        arrays["visits.row"] = self.visits.row.astype(np.int32)
        arrays["visits.tokens"] = self.visits.tokens.astype(np.int32)
        arrays["visits.nll_nats"] = stored_losses(self.visits.nll_nats)
        for cue in self.cues:
            arrays[f"cue{cue.step}.right_probability"] = cue.right_probability.astype(np.float16)
            arrays[f"cue{cue.step}.margin_nats"] = cue.margin_nats.astype(np.float16)
        if self.flatness is not None:
            arrays["flatness.radii"] = self.flatness.radii.astype(np.float32)
            arrays["flatness.perturbed_nats"] = self.flatness.perturbed_nats.astype(np.float32)
        return save(arrays, metadata={"tuneahead": json.dumps(self._header())})

    def _header(self) -> dict[str, object]:
        info = {**asdict(self.info), "recipe": self.info.recipe.model_dump(mode="json")}
        if not self.info.benchmark_fingerprint:
            del info["benchmark_fingerprint"]
        return {
            "info": info,
            "absent": self.absent,
            "cues": [
                {
                    "step": c.step,
                    "heldout_loss_nats": c.heldout_loss_nats,
                    "reference_loss_nats": c.reference_loss_nats,
                    "seconds": c.seconds,
                    "total_pp": c.total_pp,
                }
                for c in self.cues
            ],
            "flatness": None
            if self.flatness is None
            else {"step": self.flatness.step, "centre_nats": self.flatness.centre_nats},
        }


def stored_losses(nll_nats: NDArray[np.floating]) -> NDArray[np.floating]:
    """Losses of visits as a trace keeps them, ``(visits,)``: half precision, or single beyond its range."""
    # Three digits are plenty for a map of 1,600 rows, at half the size.
    with np.errstate(over="ignore"):
        half = nll_nats.astype(np.float16)
    return nll_nats.astype(np.float32) if (np.isinf(half) & np.isfinite(nll_nats)).any() else half


def trace_from_bytes(blob: bytes) -> ProbeTrace:
    """Read what :meth:`ProbeTrace.to_bytes` wrote; raises :class:`TraceError` on anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        size = int.from_bytes(blob[:8], "little")
        header = json.loads(json.loads(blob[8 : 8 + size])["__metadata__"]["tuneahead"])
        arrays: Mapping[str, NDArray[np.generic]] = load(blob)
        return _assemble(header, arrays)
    except (
        SafetensorError,
        RecipeError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise TraceError(
            f"not a probe trace of schema {SCHEMA}: {error}", remedy="run the probe again"
        ) from None


def _assemble(header: dict[str, object], arrays: Mapping[str, NDArray[np.generic]]) -> ProbeTrace:
    info = _info(header["info"])
    cues = [_numbers(cue, "cue") for cue in _of(header["cues"], list, "cues")]
    flat = None if header["flatness"] is None else _numbers(header["flatness"], "flatness")
    absent = _of(header["absent"], list, "absent")

    def floats(name: str) -> Floats:
        return arrays[name].astype(np.float32)

    return ProbeTrace(
        info=info,
        steps=StepColumns(**{f.name: floats(f"steps.{f.name}") for f in fields(StepColumns)}),
        visits=RowVisits(
            step=arrays["visits.step"].astype(np.int32),
            row=arrays["visits.row"].astype(np.int32),
            nll_nats=floats("visits.nll_nats"),
            tokens=arrays["visits.tokens"].astype(np.int32),
        ),
        cues=tuple(
            Cue(
                **{**cue, "step": int(cue["step"])},
                right_probability=floats(f"cue{int(cue['step'])}.right_probability"),
                margin_nats=floats(f"cue{int(cue['step'])}.margin_nats"),
            )
            for cue in cues
        ),
        flatness=None
        if flat is None
        else Flatness(
            step=int(flat["step"]),
            centre_nats=flat["centre_nats"],
            radii=floats("flatness.radii"),
            perturbed_nats=floats("flatness.perturbed_nats"),
        ),
        absent=tuple((str(name), str(reason)) for name, reason in absent),
    )


_PLAIN: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}


def _info(found: object) -> TraceInfo:
    info = _of(found, dict, "info")
    if info.get("schema") != SCHEMA:
        raise ValueError(f"schema {info.get('schema')}")
    info = dict(info, recipe=make_recipe(_of(info["recipe"], dict, "recipe")))
    for name in ("layers", "item_subjects"):
        # The names recur in every trace of a history: one copy of each serves all.
        info[name] = tuple(sys.intern(_of(one, str, name)) for one in _of(info[name], list, name))
    info["versions"] = tuple((str(name), str(version)) for name, version in info["versions"])
    for f in fields(TraceInfo):
        if str(f.type) in _PLAIN and f.name in info:
            _of(info[f.name], _PLAIN[str(f.type)], f.name)
    return TraceInfo(**info)


def _numbers(found: object, what: str) -> dict[str, Any]:
    return {name: _of(value, (int, float), name) for name, value in _of(found, dict, what).items()}


def _of(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{what} is {value!r:.60}")
    return value
