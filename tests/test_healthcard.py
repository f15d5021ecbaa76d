"""The health card: what is wrong, what was measured, and how sure that is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_assessment import made_checkup
from test_terminal import console, shown

from tuneahead.assessment import Checkup
from tuneahead.healthcard import print_checkup
from tuneahead.report import render_html


def card(found: Checkup, width: int = 120, encoding: str = "utf-8", note: str = "") -> str:
    target = console(width, encoding)
    print_checkup(target, found, note)
    return shown(target)


def test_the_card_says_how_the_data_are_and_links_each_finding_to_its_page() -> None:
    text = card(made_checkup(), note="Kept from yesterday.")
    assert "LOOK FIRST" in text and "2,000,000 rows, alpaca" in text
    assert "38 rows are nearly the same" in text
    assert "docs/checks.md#near-duplicates" in text
    assert "Checked in 3 min 05 s" in text and "Kept from yesterday." in text


def test_card_and_page_say_where_each_measure_is_explained() -> None:
    found = made_checkup()
    told = "What each measure is: docs/features.md."
    assert told in card(found) and told in render_html(found)
    nothing = replace(found, features=replace(found.features, values={}))
    assert told not in card(nothing)


def test_the_columns_that_were_read_are_named() -> None:
    found = made_checkup()
    names = tuple(f"c{i}" for i in range(9))
    data = replace(found.data, columns={"prompt": "problem", "answer": "the\nanswer"}, unused_columns=names)
    told = "prompt = problem, answer = the answer; unused: c0, c1, c2, c3, c4, c5, c6, c7, 1 more"
    assert told in card(replace(found, data=data)) and told in render_html(replace(found, data=data))
    assert "unused" not in card(replace(found, data=replace(data, unused_columns=())))
    assert "unused: '', id" in card(replace(found, data=replace(data, unused_columns=("", "id"))))


def test_the_base_is_named_and_where_none_was_named_that_is_said() -> None:
    found = made_checkup()
    assert "base = lab-qwen2" in card(found) and "<b>lab-qwen2</b>" in render_html(found)
    unnamed = replace(found, base_named=False)
    note = "No base was named (--base): tokens, window, template, end of text and layers were not checked"
    assert note in " ".join(card(unnamed, 160).split()) and note in render_html(unnamed)
    assert "base =" not in card(unnamed) and "<b>lab-qwen2</b>" not in render_html(unnamed)


def test_estimates_have_their_error_and_the_sample_its_mark() -> None:
    text = card(made_checkup())
    assert "about 120 million (± 1 %) tokens of which 60,000,000 are trained" in text
    for value in ("47.1 words ± 0.18", "31,622,777 ± 2.3 %", "0.41 *", "2.5 nats/token ± 0.25"):
        assert value in text, value
    assert next(line for line in text.splitlines() if "Exact duplicate" in line).split()[-2:] == ["12.5", "%"]
    assert "random samples (20,000 and 128 of the 2,000,000 rows)" in " ".join(text.split())
    assert "nan" not in text.lower() and "Parse depth" not in text


def test_without_samples_nothing_is_said_of_them() -> None:
    found = made_checkup()
    text = card(replace(found, data=replace(found.data, samples={})))
    assert "±" not in text and "sample" not in text


@pytest.mark.parametrize(("kept", "word"), [((), "SOUND"), (("note",), "SOUND"), (("warn",), "LOOK FIRST")])
def test_the_gravest_finding_gives_the_word(kept: tuple[str, ...], word: str) -> None:
    found = made_checkup()
    chosen = tuple(replace(found.findings[0], severity=severity) for severity in kept)  # type: ignore[arg-type]
    assert word in card(replace(found, findings=chosen))
    stopped = replace(found, findings=(replace(found.findings[0], severity="stop"),))
    assert "STOP" in card(stopped)


@pytest.mark.parametrize("width", [60, 80, 110, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, card(made_checkup(), width).splitlines())) <= width


def test_a_terminal_without_unicode_gets_plain_characters() -> None:
    assert "47.1 words +/- 0.18" in card(made_checkup(), encoding="ascii")


def test_markup_in_names_is_shown_not_obeyed() -> None:
    found = made_checkup()
    assert "[red]x[/red].jsonl" in card(replace(found, data=replace(found.data, path="[red]x[/red].jsonl")))
