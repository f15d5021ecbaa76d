"""The HTML report: one file that loads nothing, says what was found, and draws it in the right place."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_assessment import made_assessment, made_checkup, made_trace

from tuneahead.assessment import Assessment, Checkup, FeatureRange, Outcome
from tuneahead.errors import TuneAheadError
from tuneahead.features.sampling import Sample
from tuneahead.features.vector import FeatureVector
from tuneahead.report import plots, render_html, words, write_html
from tuneahead.report.curves import curves
from tuneahead.report.datamap import data_map
from tuneahead.report.view import report_view
from tuneahead.trace import RowVisits
from tuneahead.verdict import Finding, Fix, Verdict

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Collects tags and text, and checks that every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def unsure_assessment() -> Assessment:
    """An interval that is the whole scale, as with fewer than nine data sets."""
    found = made_assessment()
    assert found.forecast is not None
    return replace(found, forecast=replace(found.forecast, low_pp=0.0, high_pp=100.0))


def stopped() -> Assessment:
    finding = Finding("empty_answers", "stop", "every answer is empty", "map the right column", 352, (1, 2))
    return replace(
        made_assessment(),
        findings=(finding,),
        forecast=None,
        attributions=(),
        fixes=(),
        trace=None,
        ranges={},
        base_pp=math.nan,
        probe_pp=math.nan,
        verdict=Verdict("NO_GO", finding.message, math.nan),
    )


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    html = render_html(made_assessment())
    page = Page(html)
    assert page.open == []
    assert page.links == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", html)


def test_text_from_data_is_escaped() -> None:
    found = made_assessment()
    evil = Finding("x", "warn", "<script>alert(1)</script>", "<b>", 1, (1,))
    html = render_html(replace(found, findings=(evil,)))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "support &lt;tickets&gt;.jsonl" in html


@pytest.mark.parametrize(("score", "word"), [(58.3, "Go"), (44.0, "No go"), (53.0, "Unsure")])
def test_the_headline_is_the_verdict(score: float, word: str) -> None:
    text = Page(render_html(made_assessment(score))).text
    assert f" {word} Expected to score {score} %" in text


def test_a_level_near_certainty_is_not_called_certain() -> None:
    found = made_assessment()
    assert found.forecast is not None
    for level, said in ((0.9, "90 % probability"), (0.995, "99.5 % probability")):
        page = render_html(replace(found, forecast=replace(found.forecast, level=level)))
        assert f"with {said}" in page


def test_the_reasons_start_at_the_baseline_and_add_up_to_the_forecast() -> None:
    view = report_view(made_assessment())
    points = [float(row.points.replace("−", "-")) for row in view.reasons]
    assert points[0] == 43.7
    assert points[-1] == 58.3
    assert sum(points[:-1]) == pytest.approx(58.3, abs=0.5)  # ten rounded figures
    assert view.reasons[-2].label == "3 other properties"
    assert points[-2] == -0.2  # -0.2 + 0.1 - 0.05, rounded


def test_a_task_stopped_by_preflight_shows_the_reason_and_no_forecast() -> None:
    page = Page(render_html(stopped()))
    assert "Training was not started" in page.text
    assert "Every answer is empty" in page.text
    assert "Why this forecast" not in page.text
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_without_forecast_the_score_at_the_probe_is_what_is_said() -> None:
    found = replace(
        made_assessment(), forecast=None, attributions=(), verdict=Verdict("UNSURE", "unknown base", 52.0)
    )
    text = Page(render_html(found)).text
    assert "If nothing changed after the probe, it would score 47.0 %" in text
    assert "Unknown base." in text


def test_a_measured_outcome_stands_beside_the_forecast() -> None:
    text = Page(render_html(replace(made_assessment(), outcome=Outcome(56.9, 840, 33.0)))).text
    assert "Measured score 56.9 %" in text
    assert "1.4 points below the forecast; it reaches the goal of 52.0" in text


def test_rows_seen_once_are_mapped_by_the_step_of_their_visit() -> None:
    trace = made_trace()
    visits = RowVisits(
        step=np.arange(20, dtype=np.int32),
        row=np.arange(20, dtype=np.int32)[::-1].copy(),
        nll_nats=np.full(20, np.log(10), np.float32),
        tokens=np.ones(20, np.int32),
    )
    once = replace(trace, visits=visits)
    found = data_map(once)
    assert found is not None
    assert not found.repeated
    assert found.across.tolist() == list(range(20, 0, -1))  # row 0 came last, at step 20
    assert found.kinds == ["hard"] * 20
    assert set(found.hardest()) == set(range(10))  # the rows of the later half
    assert "drawn at the step" in Page(render_html(replace(made_assessment(), trace=once))).text


def test_visits_without_a_finite_loss_or_an_answer_are_not_on_the_map() -> None:
    visits = RowVisits(
        step=np.arange(20, dtype=np.int32),
        row=np.arange(20, dtype=np.int32),
        nll_nats=np.where(np.arange(20) == 3, np.nan, np.log(10)).astype(np.float32),
        tokens=np.where(np.arange(20) == 5, 0, 1).astype(np.int32),
    )
    found = data_map(replace(made_trace(), visits=visits))
    assert found is not None
    assert found.row.tolist() == [row for row in range(20) if row not in (3, 5)]
    assert np.isfinite(found.confidence).all()


def test_a_trace_with_few_visits_has_no_map() -> None:
    trace = made_trace()
    visits = RowVisits(*(getattr(trace.visits, name)[:5] for name in ("step", "row", "nll_nats", "tokens")))
    assert data_map(replace(trace, visits=visits)) is None
    assert (
        "Data map"
        not in Page(render_html(replace(made_assessment(), trace=replace(trace, visits=visits)))).text
    )


def test_writing_into_a_file_used_as_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TuneAheadError, match="can't write the report"):
        write_html(made_assessment(), tmp_path / "file" / "report.html")


def test_a_name_that_no_encoding_holds_is_written_with_a_question_mark(tmp_path: Path) -> None:
    made = made_assessment()
    found = replace(made, data=replace(made.data, path="caf\udce9.jsonl"))
    page = write_html(found, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "caf?.jsonl" in page and page == render_html(found).replace("\udce9", "?")


def test_the_scale_maps_its_ends_to_0_and_100_percent_and_keeps_outliers_inside() -> None:
    scale = plots.Scale(20.0, 60.0)
    assert [scale.percent(v) for v in (20.0, 30.0, 60.0, 999.0)] == [0.0, 25.0, 100.0, 100.0]
    assert scale.ticks(4) == (20.0, 30.0, 40.0, 50.0, 60.0)
    assert plots.tick_labels((0.0, 0.25, 0.5)) == ["0.00", "0.25", "0.50"]


def test_an_axis_without_padding_ends_at_its_data() -> None:
    assert plots.scale_over([0.0, 100.0], pad_fraction=0.0) == plots.Scale(0.0, 100.0)


def test_a_scale_of_equal_values_still_has_a_width() -> None:
    scale = plots.scale_over([5.0, 5.0, math.nan])
    assert scale.low < 5.0 < scale.high


def test_scores_that_hardly_differ_are_drawn_close_and_no_axis_passes_the_ends_of_the_scale() -> None:
    near = plots.scale_over([46.7, 46.9], least=plots.NARROWEST_PP, floor=0.0, ceiling=100.0)
    assert near.high - near.low == pytest.approx(plots.NARROWEST_PP)
    for values in ([0.0, 1.0], [99.0, 100.0], [0.0, 100.0]):
        scale = plots.scale_over(values, least=plots.NARROWEST_PP, floor=0.0, ceiling=100.0)
        assert scale.low >= 0.0 and scale.high <= 100.0
        assert scale.high - scale.low >= plots.NARROWEST_PP
    row = plots.ScoreRow("Forecast", 97.0, "forecast", 90.0, 100.0)
    assert "104" not in plots.score_chart([row], []) and "102" not in plots.score_chart([row], [])


def test_a_goal_beyond_the_ends_of_the_scale_is_drawn_where_it_lies() -> None:
    scale = plots.scale_over([60.0, 105.0], least=plots.NARROWEST_PP, floor=0.0, ceiling=100.0)
    assert scale.low >= 0.0 and scale.high == 105.0
    near = plots.scale_over([104.0, 105.0], least=plots.NARROWEST_PP, floor=0.0, ceiling=100.0)
    assert near.high == 105.0 and near.high - near.low >= plots.NARROWEST_PP


@pytest.mark.parametrize(
    ("metric", "unit"), [("exact_match", "% of 100 items"), ("rouge_l", "ROUGE-L over 100 items, %")]
)
def test_only_right_answers_are_a_share_of_the_items(metric: str, unit: str) -> None:
    trace = made_trace()
    drawn = curves(replace(trace, info=replace(trace.info, metric=metric)))
    assert any(unit in chart for chart in drawn)


def test_what_lies_outside_is_shown_first_however_much_it_is() -> None:
    names = [f"f{place}" for place in range(30)]
    vector = FeatureVector(dict.fromkeys(names, 1.0), {})
    outside = {name: FeatureRange(2.0, 3.0) for name in names[:20]}
    inside = {name: FeatureRange(0.0, 3.0) for name in names[20:]}
    view = report_view(replace(made_assessment(), features=vector, ranges={**outside, **inside}))
    assert [strip.note for strip in view.strips] == ["below usual"] * 20
    view = report_view(replace(made_assessment(), features=vector, ranges=inside))
    assert len(view.strips) == 10


def test_a_probe_that_went_through_did_not_break_down() -> None:
    made = made_assessment()
    stop = Finding("no-effect", "stop", "no weight moved: nothing is being trained", "raise the rate")
    found = replace(made, forecast=None, findings=(stop,))
    assert words.lead(found) == "The probe showed a sure reason to stop."
    assert made.trace is not None
    failed = replace(made.trace, info=replace(made.trace.info, failure="the loss was not finite at step 3"))
    assert "broke down" in words.lead(replace(found, trace=failed))


def test_curves_of_a_probe_that_hardly_moved_are_flat() -> None:
    trace = made_trace()
    cues = tuple(replace(cue, reference_loss_nats=1.92 + 0.0005 * at) for at, cue in enumerate(trace.cues))
    chart = next(found for found in curves(replace(trace, cues=cues)) if "Forgetting" in found)
    heights = [float(y) for y in re.findall(r'cy="([0-9.]+)%"', chart)]
    assert len(heights) == len(cues) and max(heights) - min(heights) < 10


def test_a_line_with_an_absent_value_has_a_gap() -> None:
    chart = plots.Chart("t", "u", "r")
    drawn = plots.line_chart(chart, [plots.Series("s", [0, 1, 2, 3, 4], [1.0, 2.0, math.nan, 2.0, 1.0])])
    assert drawn.count("<polyline") == 2


@pytest.mark.parametrize(
    ("seconds", "per_hour", "text"),
    [(3600, 2.49, "2.49"), (90, 2.4, "0.06"), (4_000_000, 3.0, "3,333.33"), (1, 2.0, "less than 0.01")],
)
def test_a_price_is_that_of_the_hours(seconds: float, per_hour: float, text: str) -> None:
    assert words.price(seconds, per_hour) == text


def test_without_time_or_price_nothing_is_said_of_money() -> None:
    assert words.price(math.nan, 2.0) == words.price(60.0, math.nan) == ""


def test_the_report_says_what_probe_and_run_cost() -> None:
    made = made_assessment()
    found = replace(made, costs=replace(made.costs, full_run_seconds=7200.0, price_per_hour=2.49))
    text = Page(render_html(found)).text
    assert f"{made.task.total_steps:,} steps; 4.98 at 2.49 an hour" in text
    assert "an hour" not in Page(render_html(made)).text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.24, "4.2 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (math.nan, "n/a")],
)
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999"), (104_400_000, "104 million"), (999_700, "1 million"), (999_400, "999 thousand")],
)
def test_large_counts_are_rounded_before_their_unit_is_chosen(count: float, text: str) -> None:
    assert words.rounded(count) == text


def test_points_that_print_as_zero_have_no_side() -> None:
    assert [words.signed_pp(points) for points in (-0.04, 0.0, 0.04)] == ["±0.0"] * 3
    assert [words.signed_pp(points) for points in (-0.06, 0.06)] == ["−0.1", "+0.1"]


def test_rows_are_named_and_the_rest_counted() -> None:
    assert words.rows_text(Finding("c", "warn", "m", "r", 10, (3, 5, 9))) == "rows 3, 5, 9 and 7 more"
    assert words.rows_text(Finding("c", "warn", "m", "r", 1, (3,))) == "row 3"


def test_the_map_holds_confidence_and_spread_of_rows_seen_twice() -> None:
    visits = RowVisits(
        step=np.repeat(np.arange(2), 12).astype(np.int32),
        row=np.tile(np.arange(12), 2).astype(np.int32),
        nll_nats=np.log(np.repeat([1 / 0.2, 1 / 0.8], 12)).astype(np.float32) * 3,
        tokens=np.full(24, 3, np.int32),
    )
    found = data_map(replace(made_trace(), visits=visits))
    assert found is not None
    assert found.confidence == pytest.approx([0.5] * 12, abs=1e-6)  # mean of 0.2 and 0.8
    assert found.repeated
    assert found.across == pytest.approx([0.3] * 12, abs=1e-6)
    assert found.kinds == ["ambiguous"] * 12
    assert found.hardest() == []


MEASURE = """
onload = () => {
  const page = document.getElementById('page').contentDocument;
  const all = (css) => [...page.querySelectorAll(css)].filter((e) => e.getBoundingClientRect().width > 0);
  const touching = [];
  for (const axis of all('.x-ticks')) {
    const ticks = [...axis.children].map((e) => e.getBoundingClientRect()).filter((box) => box.width > 0);
    ticks.slice(1).forEach((box, i) => {
      if (box.left < ticks[i].right + 2) touching.push(axis.textContent);
    });
  }
  const cut = all('.figures dd').filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.textContent);
  document.querySelector('pre').textContent = JSON.stringify({
    cards: all('.card').filter((e) => e.getBoundingClientRect().height > 50).length,
    shapes: all('svg rect, svg circle, svg polyline').length,
    wide: page.documentElement.scrollWidth, touching, cut,
  });
};
"""
"""Says of the framed page what is drawn, how wide it is, and which labels touch or are cut off."""


def long_names_assessment() -> Assessment:
    found, long = made_assessment(), "x" * 400
    finding = Finding("x", "warn", long, long, 1, (1,))
    return replace(found, findings=(finding,), fixes=(Fix(long, long),), task=replace(found.task, base=long))


def measured_in_a_browser(tmp_path: Path, html: str, width: int, script: str) -> dict[str, Any]:
    """What ``script`` says of the page in a frame: that is as narrow as it is told, a window is not."""
    frame = f'<iframe id="page" style="width: {width}px" srcdoc="{escape(html)}"></iframe>'
    page = tmp_path / "framed.html"
    page.write_text(f"<!doctype html>{frame}<pre></pre><script>{script}</script>", encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    done = subprocess.run(["chromium", *flags, page.as_uri()], check=True, capture_output=True, timeout=120)
    drawn = re.search(r"<pre>(.*)</pre>", done.stdout.decode())
    assert drawn is not None
    found: dict[str, Any] = json.loads(unescape(drawn[1]))
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("made", [made_assessment, unsure_assessment, long_names_assessment, made_checkup])
def test_a_real_browser_draws_the_page(
    tmp_path: Path, width: int, made: Callable[[], Assessment | Checkup]
) -> None:
    found = measured_in_a_browser(tmp_path, render_html(made()), width, MEASURE)
    assert found["cards"] >= 3 and found["shapes"] >= 2, "the page is drawn"
    assert found["wide"] <= width and found["touching"] == [] and found["cut"] == []


DETAILS = """
onload = () => {
  const page = document.getElementById('page').contentDocument;
  const size = (e) => parseFloat(getComputedStyle(e).fontSize);
  const larger = [...page.querySelectorAll('th span, .fixes span, .figures .note, .findings small, code')]
    .filter((e) => size(e) > size(page.body)).map((e) => e.textContent);
  document.querySelector('pre').textContent = JSON.stringify({larger});
};
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_on_paper_no_detail_is_larger_than_the_text(tmp_path: Path) -> None:
    printed = render_html(made_assessment()).replace("@media print", "@media all")
    assert measured_in_a_browser(tmp_path, printed, 740, DETAILS) == {"larger": []}


def test_measures_without_a_range_leave_no_room_for_its_bar() -> None:
    made = made_assessment()
    features = FeatureVector({"parse_depth_mean": 4.5})
    bare = render_html(replace(made, features=features, ranges={}))
    ranged = render_html(
        replace(made, features=features, ranges={"parse_depth_mean": FeatureRange(1.0, 9.0)})
    )
    assert 'class="strip-row plain"' in bare and "<i></i>" not in bare
    assert 'class="strip-row"' in ranged and 'class="strip-row plain"' not in ranged


def test_the_error_of_a_measure_stands_apart_from_its_value() -> None:
    found = replace(
        made_assessment(), features=FeatureVector({"parse_depth_mean": 4.5, "parse_depth_sd": 1.0}), ranges={}
    )
    samples = {"parse_depth_mean": Sample(200, 352, 0.13)}
    strip = report_view(replace(found, data=replace(found.data, samples=samples))).strips[0]
    assert (strip.value, strip.error) == ("4.5 links", "± 0.13")
    assert '4.5 links <small class="error">± 0.13</small>' in render_html(
        replace(found, data=replace(found.data, samples=samples))
    )


@pytest.mark.parametrize("made", [made_assessment, made_checkup])
def test_a_list_of_names_and_values_holds_nothing_else(made: Callable[[], Assessment | Checkup]) -> None:
    for found in re.findall(r"<dl.*?</dl>", render_html(made()), re.DOTALL):
        assert set(re.findall(r"</(\w+)>", found)) <= {"dl", "div", "dt", "dd", "small"}


@pytest.mark.parametrize("made", [made_assessment, made_checkup])
def test_a_notebook_shows_the_page_in_a_frame_of_its_own(made: Callable[[], Assessment | Checkup]) -> None:
    found = made()
    odd = replace(found, data=replace(found.data, path="caf\udce9 <i>.jsonl"))
    shown = odd._repr_html_()
    frame = re.fullmatch(r'<iframe srcdoc="([^"]*)" title="[^"]*" style="[^"]*"></iframe>', shown, re.DOTALL)
    assert frame is not None, "nothing of the page leaves its frame"
    assert unescape(frame[1]) == render_html(odd).replace("\udce9", "?")
    shown.encode()


@pytest.mark.parametrize("made", [made_assessment, made_checkup])
def test_a_prompt_shows_what_was_found_and_no_measurements(
    made: Callable[[], Assessment | Checkup],
) -> None:
    found = made()
    assert len(repr(found)) < 5_000 and found.findings[0].message in repr(found)


def test_scores_without_a_goal_are_read_without_one() -> None:
    found = made_assessment()
    page = render_html(replace(found, verdict=replace(found.verdict, threshold_pp=math.nan)))
    assert "Scores in percent. Base 31.4;" in page and "goal n/a" not in page


def test_a_finding_of_the_probe_is_not_said_to_be_of_before_any_training() -> None:
    found = made_assessment()
    stop = Finding("non-finite", "stop", "the loss was not finite at step 61", "lower the rate")
    probed = Page(render_html(replace(found, findings=(stop,)))).text
    assert "looked at 352 rows before any training, and then at the probe: 1 blocking problem" in probed
    unprobed = Page(render_html(replace(found, findings=(stop,), trace=None))).text
    assert "looked at 352 rows before any training: 1 blocking problem" in unprobed


def test_the_page_of_a_checkup_is_well_formed_and_states_errors() -> None:
    html = render_html(made_checkup())
    page = Page(html)
    assert page.open == [] and page.links == []
    assert not {"script", "link", "img", "iframe", "rows"} & set(page.tags)
    for part in ("Look first", "big <rows>.jsonl", "47.1 words ± 0.18", "120 million", "estimated, ± 1 %"):
        assert part in page.text, part
    assert "docs/checks.md#near-duplicates" in page.text
    assert "(20,000 and 128 of the 2,000,000 rows)" in page.text


def test_the_report_of_an_assessment_states_errors_of_samples_too() -> None:
    found = made_assessment()
    data = replace(found.data, samples={"parse_depth_mean": Sample(200, 352, 0.25)})
    features = FeatureVector({"parse_depth_mean": 4.5})
    page = Page(render_html(replace(found, features=features, data=data, ranges={})))
    assert "4.5 links ± 0.25" in page.text and "(200 of the 352 rows)" in page.text
    assert "of the 352 rows" not in Page(render_html(found)).text


def test_a_feature_s_name_in_words_has_no_unit_and_says_what_it_is() -> None:
    labels = {
        "loss_variance_nats2": "Loss variance",
        "non_ascii_fraction": "Non ASCII",
        "probe_fraction": "Probe's share of the run",
        "heldout_start_nats": "Held-out start",
        "lora_rank_log2": "LoRA rank",
    }
    assert {name: words.feature_label(name) for name in labels} == labels
    assert words.feature_words("probe_fraction") == "probe's share of the run"
