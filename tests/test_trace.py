"""A trace is stored and read back as it is, and can be cut to any length."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tuneahead.errors import TraceError
from tuneahead.recipe import Recipe
from tuneahead.trace import (
    Cue,
    Flatness,
    ProbeTrace,
    RowVisits,
    StepColumns,
    TraceInfo,
    trace_from_bytes,
)


def make_trace(steps: int = 20) -> ProbeTrace:
    generator = np.random.default_rng(0)
    columns = {f.name: generator.random(steps).astype(np.float32) for f in fields(StepColumns)}
    columns["layer_grad_norm"] = generator.random((steps, 2)).astype(np.float32)
    step = np.repeat(np.arange(steps), 2).astype(np.int32)
    visits = RowVisits(step, step * 3, step.astype(np.float32), step + 1)
    cues = tuple(
        Cue(at, 1.0 + at, 2.0, np.full(4, 0.5, np.float32), np.array([1, -1, 2, 0], np.float32), 0.5)
        for at in (0, 10, 20)
    )
    info = TraceInfo(
        "lab", "b" * 16, "d" * 16, Recipe(max_steps=300), 300, 90, 10, 1000, ("layer 0", "layer 1"), "exam",
        ("a", "a", "b", "b"), 25.0, "", (("torch", "2"),),
    )  # fmt: skip
    flat = Flatness(20, 1.0, np.array([0.05], np.float32), np.array([[1.5, 1.25]], np.float32))
    return ProbeTrace(info, StepColumns(**columns), visits, cues, flat, (("memory", "not measured"),))


def test_bytes_give_the_trace_back() -> None:
    trace = make_trace()
    again = trace_from_bytes(trace.to_bytes())
    assert again.info == trace.info and again.absent == trace.absent
    for f in fields(StepColumns):
        np.testing.assert_array_equal(getattr(again.steps, f.name), getattr(trace.steps, f.name))
    for f in fields(RowVisits):
        np.testing.assert_array_equal(getattr(again.visits, f.name), getattr(trace.visits, f.name))
    assert [c.step for c in again.cues] == [0, 10, 20] and again.cues[1].heldout_loss_nats == 11.0
    assert again.flatness is not None and trace.flatness is not None
    np.testing.assert_array_equal(again.flatness.perturbed_nats, trace.flatness.perturbed_nats)
    assert again.to_bytes() == trace.to_bytes()


@pytest.mark.filterwarnings("error")
def test_the_loss_of_a_very_long_answer_is_kept() -> None:
    trace = make_trace()
    nll = np.array(trace.visits.nll_nats, np.float32)
    nll[0] = 70_000.5
    long = replace(trace, visits=replace(trace.visits, nll_nats=nll))
    assert trace_from_bytes(long.to_bytes()).visits.nll_nats[0] == np.float32(70_000.5)


def test_traces_of_one_benchmark_share_the_names_of_its_subjects() -> None:
    blob = make_trace().to_bytes()
    one, other = trace_from_bytes(blob), trace_from_bytes(blob)
    assert all(a is b for a, b in zip(one.info.item_subjects, other.info.item_subjects, strict=True))
    assert all(a is b for a, b in zip(one.info.layers, other.info.layers, strict=True))


def test_a_cut_trace_holds_what_was_known_by_then() -> None:
    cut = make_trace().truncate(10)
    assert len(cut.steps) == 10 and cut.steps.layer_grad_norm.shape == (10, 2)
    assert cut.visits.step.max() == 9 and len(cut.visits.row) == 20
    assert [cue.step for cue in cut.cues] == [0, 10]
    assert cut.flatness is None and cut.cue_at(20) is None
    assert make_trace().truncate(20).flatness is not None


def test_derived_views_are_what_they_say() -> None:
    trace = make_trace()
    np.testing.assert_allclose(
        trace.steps.loss_nats, trace.steps.loss_sum_nats / trace.steps.answer_tokens, rtol=1e-6
    )
    # Margins 1, -1, 2, 0: a tie is not an answer.
    assert trace.cues[0].accuracy_pp == 50.0
    assert np.isnan(replace(trace.cues[0], margin_nats=np.zeros(0, np.float32)).accuracy_pp)


@pytest.mark.parametrize("blob", [b"", b"nonsense", b'\x10\x00\x00\x00\x00\x00\x00\x00{"a": 1}        '])
def test_anything_else_is_refused(blob: bytes) -> None:
    with pytest.raises(TraceError, match="not a probe trace"):
        trace_from_bytes(blob)


def with_header(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A stored trace whose own header was changed in place, tensors untouched."""
    blob = make_trace().to_bytes()
    size = int.from_bytes(blob[:8], "little")
    outer = json.loads(blob[8 : 8 + size])
    own = json.loads(outer["__metadata__"]["tuneahead"])
    change(own)
    outer["__metadata__"]["tuneahead"] = json.dumps(own)
    text = json.dumps(outer).encode()
    return len(text).to_bytes(8, "little") + text + blob[8 + size :]


def test_another_schema_is_refused() -> None:
    with pytest.raises(TraceError, match="schema 9"):
        trace_from_bytes(with_header(lambda own: own["info"].update(schema=9)))


@pytest.mark.parametrize(
    "change",
    [
        lambda own: own.update(cues={"step": 0}),
        lambda own: own.update(cues=["first"]),
        lambda own: own["cues"][0].update(step="first"),
        lambda own: own["cues"][0].update(step=7),
        lambda own: own.update(absent={}),
        lambda own: own.update(absent=[["alone"]]),
        lambda own: own.update(flatness=[1]),
        lambda own: own["info"]["recipe"].update(learning_speed=1),
        lambda own: own["info"]["recipe"].update(batch_size="few"),
        lambda own: own["info"].update(recipe=[]),
        lambda own: own["info"].update(total_steps="many"),
        lambda own: own["info"].update(layers="layer 0"),
        lambda own: own["info"].update(later_field=1),
        lambda own: own.pop("info"),
    ],
)
def test_a_damaged_header_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(TraceError, match="not a probe trace"):
        trace_from_bytes(with_header(change))


def test_a_trace_from_before_the_metric_was_recorded_reads_as_accuracy() -> None:
    assert trace_from_bytes(with_header(lambda own: own["info"].pop("metric"))).info.metric == "accuracy"
    mc2 = replace(make_trace(), info=replace(make_trace().info, metric="mc2"))
    assert trace_from_bytes(mc2.to_bytes()).info.metric == "mc2"


def test_a_cue_with_57_of_100_items_right_scores_57_points() -> None:
    margin = np.where(np.arange(100) < 57, 1, -1).astype(np.float32)
    assert Cue(0, 1.0, 2.0, margin, margin).score_pp("accuracy") == 57.0
    margin[0] = np.nan
    assert np.isnan(Cue(0, 1.0, 2.0, margin, margin).score_pp("accuracy"))


def test_a_cue_is_scored_by_its_benchmark_s_metric() -> None:
    right, margin = np.array([0.5, 0.25, 0.75, 1.0], np.float32), np.array([1, -1, -2, 3], np.float32)
    cue = Cue(0, 1.0, 2.0, right, margin)
    assert cue.score_pp("accuracy") == cue.accuracy_pp == 50.0
    assert cue.score_pp("mc2") == 62.5
    answered = Cue(0, 1.0, 2.0, np.array([1, 0, 1], np.float32), np.array([1, -1, 1], np.float32))
    assert answered.score_pp("exact_match") == pytest.approx(200 / 3)
    none = np.zeros(0, np.float32)
    assert np.isnan(Cue(0, 1.0, 2.0, none, none).score_pp("mc2"))


def test_a_cue_of_an_infinite_step_is_refused() -> None:
    with pytest.raises(TraceError, match="not a probe trace"):
        trace_from_bytes(with_header(lambda header: header["cues"][0].update(step=float("inf"))))
