"""Terminal output: the same findings as text, at any width and in any encoding."""

from __future__ import annotations

import html
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from made_assessment import made_assessment, made_trace
from rich.console import Console

from tuneahead.assessment import Assessment, Outcome, assessment_from_json
from tuneahead.report import render_html
from tuneahead.terminal import costs_line, print_assessment, print_ranking, print_trace
from tuneahead.verdict import Finding, Forecast, Verdict, decide


def console(width: int = 100, encoding: str = "utf-8") -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width)


def shown(target: Console) -> str:
    target.file.flush()
    buffer = target.file.buffer  # type: ignore[attr-defined]
    return str(buffer.getvalue().decode(target.file.encoding))


def test_an_assessment_says_verdict_forecast_reasons_and_fixes() -> None:
    target = console()
    print_assessment(target, made_assessment())
    text = shown(target)
    for part in (
        "GO  Expected to score 58.3 %",
        "55.2 to 61.4",
        "goal 52.0",
        "Remove near-duplicates",
        "+14.9",
    ):
        assert part in text


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    target = console(width)
    print_assessment(target, made_assessment())
    print_ranking(target, ["a.yaml", "recipes/long-name.yaml"], [made_assessment(), made_assessment(44.0)])
    print_trace(target, made_trace())
    assert max(len(line) for line in shown(target).splitlines()) <= width


def test_a_loss_that_a_log_lacks_is_absent_and_no_number() -> None:
    target, trace = console(), made_trace()
    absent = np.full(len(trace.steps), np.nan, np.float32)
    steps = replace(trace.steps, loss_sum_nats=absent, grad_norm=absent)
    print_trace(target, replace(trace, steps=steps))
    assert "nan" not in shown(target) and shown(target).count("n/a") >= 10


def test_the_whole_interval_is_readable_in_60_columns() -> None:
    target = console(60)
    print_assessment(target, made_assessment())
    assert "55.2 to 61.4" in shown(target)


def test_a_terminal_without_unicode_gets_plain_characters() -> None:
    target = console(encoding="cp1252")
    print_assessment(target, made_assessment())
    assert "GO  Expected" in shown(target)


def test_the_points_lie_in_the_order_of_the_scores() -> None:
    target = console()
    print_assessment(target, made_assessment())
    lines = shown(target).splitlines()
    at = [
        next(line.index("●") for line in lines if label in line)
        for label in ("Base ", "At step 100", "Forecast ")
    ]
    assert at == sorted(at)


def test_markup_in_names_is_shown_not_obeyed() -> None:
    found = made_assessment()
    found = replace(found, data=replace(found.data, path="[red]x[/red].jsonl"))
    target = console()
    print_assessment(target, found)
    assert "[red]x[/red].jsonl" in shown(target)


def test_scores_on_some_of_the_items_are_told_as_such() -> None:
    found = made_assessment()
    said = "Base and probe were scored on 100 of the benchmark's 816 items (standard error up to 4.6 points)."
    target = console(140)
    print_assessment(target, found)
    assert said in shown(target) and said in html.unescape(render_html(found))
    all_asked = replace(found, task=replace(found.task, benchmark_items=100))
    target = console(140)
    print_assessment(target, all_asked)
    assert "were scored on" not in shown(target) + render_html(all_asked)


def test_an_outcome_lies_above_or_below_its_forecast() -> None:
    found = made_assessment()
    assert found.forecast is not None
    for off, said in ((1.4, "1.4 points above the forecast"), (-0.4, "0.4 points below the forecast")):
        outcome = Outcome(found.forecast.score_pp + off, 840, 33.0)
        score = f"{outcome.score_pp:.1f} %"
        line = costs_line(replace(found, outcome=outcome)).plain
        assert f"; it scored {score}, {said}; it reaches the goal of 52.0." in line
    missed = replace(found, outcome=Outcome(51.98, 840, 33.0), forecast=None)
    assert costs_line(missed).plain.endswith("; it scored 52.0 %, it stays below the goal of 52.00.")


def test_a_full_run_that_ended_early_has_its_reason_instead_of_a_score() -> None:
    failed = Outcome(math.nan, 347, 33.0, failure="the loss was not finite at step 347")
    found = replace(made_assessment(), outcome=failed)
    said = "ended early: the loss was not finite at step 347"
    assert costs_line(found).plain.endswith(f"the full run of 840 steps took 33 s; it {said}.")
    page = html.unescape(render_html(found))
    assert f"the full run {said}" in page and "n/a points" not in page and "Measured n/a" not in page
    assert assessment_from_json(found.to_json()).outcome is not None
    no_number = replace(found, outcome=replace(failed, failure=""))
    assert costs_line(no_number).plain.endswith("; it has no finite score.")


def test_nothing_is_foreseen_of_a_run_that_was_made() -> None:
    made = made_assessment()
    full = replace(made, outcome=Outcome(58.0, 840, 3600.0), costs=replace(made.costs, price_per_hour=2.0))
    whole = replace(made, task=replace(made.task, total_steps=100), forecast=None)
    assert "the full run of 840 steps took 1 h 00 min (2.00) at 2 an hour" in costs_line(full).plain
    assert costs_line(whole).plain == "The probe took 4.2 s."
    for found, said in ((full, "Full run took"), (whole, "The probe took")):
        page = render_html(found)
        assert said in page and "would train" not in page + costs_line(found).plain


@pytest.mark.parametrize("width", [40, 56])
def test_scores_are_told_in_a_terminal_too_narrow_for_their_bars(width: int) -> None:
    target = console(width)
    print_assessment(target, replace(made_assessment(), outcome=Outcome(57.9, 840, 33.0)))
    text = shown(target)
    for label, score in (("Base", "31.4"), ("At step 100", "47.0"), ("Measured", "57.9"), ("Goal", "52.0")):
        assert re.search(rf"{label} +{score}", text), label
    assert re.search(r"55\.2 to\W+61\.4", text)


def test_control_characters_in_names_do_not_reach_the_terminal() -> None:
    made, bad = made_assessment(), "\x1b]0;title\x07\x1b[31mred"
    data = replace(made.data, path=bad, columns={"prompt": "x"}, unused_columns=(bad,))
    finding = replace(made.findings[0], message=f"column {bad} is empty")
    target = console(140)
    print_assessment(target, replace(made, data=data, findings=(finding,)))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown(target))
    assert shown(target).count("?]0;title??[31mred") == 3


def test_a_name_does_not_turn_the_writing_around_it() -> None:
    made, turning = made_assessment(), "a\u202egnp.\u2066exe"
    named = replace(made, data=replace(made.data, path=turning), task=replace(made.task, base=turning))
    target = console(140)
    print_assessment(target, named)
    for text in (shown(target), render_html(named)):
        assert "a?gnp.?exe" in text
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)


def test_in_a_narrow_terminal_reasons_are_words_and_no_bars() -> None:
    wide, narrow = console(60), console(40)
    print_assessment(wide, made_assessment())
    print_assessment(narrow, made_assessment())
    assert "█" in shown(wide)
    assert "█" not in shown(narrow)
    assert "+1.9  Learning rate" in shown(narrow)


def test_a_length_that_is_the_least_is_said_to_be_that() -> None:
    made = made_assessment()
    found = replace(made, costs=replace(made.costs, full_run_seconds=7200.0, full_run_is_least=True))
    target = console(200)
    print_ranking(target, ["a.yaml"], [found])
    assert "would train for at least 2 h 00 min" in costs_line(found).plain
    assert "at least 2 h" in shown(target)


def test_a_price_has_times_shown_in_money() -> None:
    made = made_assessment()
    found = replace(made, costs=replace(made.costs, full_run_seconds=7200.0, price_per_hour=2.49))
    target = console(160)
    print_assessment(target, found)
    print_ranking(target, ["a.yaml"], [found])
    text = shown(target)
    assert "would train for about 2 h 00 min (4.98) at 2.49 an hour." in text
    assert text.count("(4.98)") == 2
    target = console(160)
    print_assessment(target, made)
    assert "an hour" not in shown(target)


def test_a_ranking_says_how_likely_each_recipe_is_the_best() -> None:
    first, second = (
        replace(one, forecast=_with_sd(one, 3.0)) for one in (made_assessment(), made_assessment(44.0))
    )
    target = console(120)
    print_ranking(target, ["good.yaml", "bad.yaml"], [first, second])
    text = shown(target)
    assert "Best" in text and "> 99 %" in text and "< 1 %" in text and "ends best of all" in text
    third = replace(first, forecast=replace(_with_sd(first, 3.0), score_pp=57.0))
    target = console(120)
    print_ranking(target, ["good.yaml", "fair.yaml"], [first, third])
    assert "62 %" in shown(target), "the normal share of 1.3 over 3 times the root of 2"
    target = console(120)
    print_ranking(target, ["good.yaml", "bad.yaml"], [made_assessment(), made_assessment(44.0)])
    assert "Best" not in shown(target), "the predictor does not know"


def _with_sd(one: Assessment, sd_pp: float) -> Forecast:
    assert one.forecast is not None
    return replace(one.forecast, recipe_sd_pp=sd_pp)


def test_a_ranking_names_recipes_without_folders_where_their_files_are_named_apart() -> None:
    target = console(120)
    print_ranking(target, ["a.yaml", "recipes/b.yaml"], [made_assessment(), made_assessment(44.0)])
    text = shown(target)
    assert " a.yaml " in text and " b.yaml " in text and "recipes/" not in text


def test_a_ranking_of_recipes_in_one_folder_fits_80_columns() -> None:
    paths = ["recipes/rate-1e-3.yaml", "recipes/rate-3e-3.yaml"]
    sure = [replace(one, forecast=_with_sd(one, 3.0)) for one in (made_assessment(), made_assessment(44.0))]
    target = console(80)
    print_ranking(target, paths, sure)
    text = shown(target)
    assert " rate-1e-3.yaml " in text and "recipes" not in text
    assert "55.2 to 61.4" in text and "40.9 to 47.1" in text and "Verdict" in text and "No go" in text
    target = console(120)
    print_ranking(target, ["a/x.yaml", "b/x.yaml"], sure)
    assert "a/x.yaml" in shown(target) and "b/x.yaml" in shown(target)


def test_a_ranking_says_once_why_recipes_have_no_forecast() -> None:
    made = made_assessment()

    def unforeseen(why: str) -> Assessment:
        return replace(made, forecast=None, verdict=Verdict("UNSURE", why, 52.0))

    unknown = unforeseen("the predictor has seen no run of base mine")
    target = console(200)
    found = [made, unknown, unforeseen("learning rate 3 is above 0.1"), unknown]
    print_ranking(target, ["a.yaml", "b.yaml", "c.yaml", "d.yaml"], found)
    lines = [line.strip() for line in shown(target).splitlines()]
    assert lines.count("2, 4: The predictor has seen no run of base mine.") == 1
    assert lines.count("3: Learning rate 3 is above 0.1.") == 1


def test_a_ranking_says_its_goal_and_why_a_verdict_is_not_what_the_interval_says() -> None:
    low = made_assessment(44.0)
    assert low.forecast is not None and low.verdict.decision == "NO_GO"
    odd = replace(
        low,
        forecast=replace(low.forecast, in_distribution=False),
        verdict=Verdict("UNSURE", "learning rate (0.05; known 1e-4 to 0.01) lies outside", 52.0),
    )
    stop = Finding("loss-spike", "stop", "the loss rose at step 61", "lower the rate")
    spoilt = replace(low, findings=(stop,), verdict=decide(low.forecast, low.goal, (stop,)))
    target = console(120)
    print_ranking(target, ["a.yaml", "b.yaml", "c.yaml", "d.yaml"], [made_assessment(), odd, low, spoilt])
    lines = [line.strip() for line in shown(target).splitlines()]
    assert "Goal: a score of 52.0." in lines
    assert [line for line in lines if line[:2] in ("1:", "2:", "3:", "4:")] == [
        "2: Learning rate (0.05; known 1e-4 to 0.01) lies outside.",
        "4: The loss rose at step 61.",
    ]


def test_a_ranking_keeps_the_order_given() -> None:
    target = console()
    print_ranking(target, ["good.yaml", "bad.yaml"], [made_assessment(), made_assessment(44.0)])
    text = shown(target)
    assert text.index("good.yaml") < text.index("bad.yaml")
    assert "No go" in text
