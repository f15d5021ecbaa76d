"""Advice: the surest first, each remedy once, gains against losses."""

from __future__ import annotations

from tuneahead.features.catalogue import CATALOGUE, spec
from tuneahead.predictor.advice import MOST_FIXES, advise
from tuneahead.verdict import Attribution, Finding


def attribution(name: str, points: float) -> Attribution:
    return Attribution(name, 0.5, points, f"sentence of {name}")


STOP = Finding("masked-answers", "stop", "no answer is trained", "raise max_length")
WARN = Finding("near-duplicates", "warn", "a third are copies", "remove the copies")
NOTE = Finding("token-budget", "note", "few tokens", "collect more rows")


def test_order_is_stop_warning_harms_note():
    found = advise(
        [attribution("grad_noise_ratio", -0.5), attribution("hard_rows_fraction", -3.0)], [NOTE, WARN, STOP]
    )
    assert [fix.feature for fix in found] == [
        "masked-answers",
        "near-duplicates",
        "hard_rows_fraction",
        "grad_noise_ratio",
        "token-budget",
    ]
    assert found[2].title == spec("hard_rows_fraction").remedy
    assert found[2].reason == "sentence of hard_rows_fraction (-3.0 points)"
    assert found[2].contribution_pp == -3.0


def test_features_with_one_remedy_count_together_and_are_named_once():
    assert spec("loss_spike_fraction").remedy == spec("loss_max_ratio").remedy
    found = advise([attribution("loss_spike_fraction", -1.0), attribution("loss_max_ratio", -2.0)], [])
    assert [(fix.feature, fix.contribution_pp) for fix in found] == [("loss_max_ratio", -3.0)]
    # Among the reasons the named one stands with -2.0.
    assert found[0].reason == "sentence of loss_max_ratio (-3.0 points with related properties)"


def test_what_helps_as_much_as_it_harms_needs_no_remedy():
    assert advise([attribution("loss_spike_fraction", -2.0), attribution("loss_max_ratio", 2.5)], []) == ()


def test_gains_trifles_and_features_without_remedy_give_no_advice():
    given = [
        attribution("hard_rows_fraction", 4.0),
        attribution("grad_noise_ratio", -0.1),
        attribution("layer_grad_depth", -5.0),
        attribution("base_pp", -9.0),
    ]
    assert advise(given, []) == ()


def test_a_setting_that_is_what_the_remedy_asks_for_brings_none():
    usual = (("clip_norm", 1.0), ("warmup_fraction", 0.05), ("lora_scale", 2.0))
    assert advise([Attribution(name, value, -2.0, "") for name, value in usual], []) == ()
    unusual = (("clip_norm", 0.1), ("warmup_fraction", 0.5), ("lora_scale", 16.0))
    assert len(advise([Attribution(name, value, -2.0, "") for name, value in unusual], [])) == 3


def test_the_same_remedy_from_two_findings_is_given_once():
    again = Finding("cut-answers", "warn", "answers are cut", "Raise  max_length.")
    assert [fix.reason for fix in advise([], [again, STOP])] == ["no answer is trained"]


def test_a_remedy_is_for_values_on_its_side_of_what_most_runs_have():
    knows, answers = "base_knows_fraction", "answer_type_token_ratio"
    given = [Attribution(name, 0.4, -2.0, "") for name in (knows, answers)]
    assert {fix.feature for fix in advise(given, [])} == {knows, answers}
    # The base knows few of the answers: telling to take out those that it knows would be nonsense.
    assert [fix.feature for fix in advise(given, [], {knows: 0.6, answers: 0.5})] == [answers]
    assert [fix.feature for fix in advise(given, [], {knows: 0.2, answers: 0.3})] == [knows]


def test_no_high_loss_is_answered_by_a_higher_rate():
    # A rate that is far too high ends with a high loss too: following the advice would make it worse.
    ends_badly = ("loss_end_nats", "heldout_end_ratio", "confidence_mean", "loss_fall_nats")
    titles = [fix.title for fix in advise([attribution(name, -2.0) for name in ends_badly], [])]
    assert len(titles) == 1 and "a third and three times the learning rate" in titles[0]
    assert not [row.name for row in CATALOGUE if "raise the learning rate" in row.remedy]


def test_what_the_base_knew_is_overwritten_only_where_its_lead_shrinks():
    slow = ("late_gain_pp", "score_slope_pp", "extrapolated_gain_headroom", "known_margin_change_nats")
    falls = ("right_probability_gain", "margin_shift")
    typical = dict.fromkeys((*slow, *falls), 2.0)
    rising = [Attribution(name, 0.5, -2.0, "") for name in (*slow, *falls)]
    assert advise(rising, [], typical) == ()
    falling = [Attribution(name, -0.5, -2.0, "") for name in (*slow, *falls)]
    assert len(advise(falling, [], typical)) == 2


def test_no_remedy_asks_for_a_probe_of_another_length():
    # A predictor knows probes of the one length that it learned from.
    assert not [row.name for row in CATALOGUE if "probe longer" in row.remedy]


def test_advice_stays_short():
    many = [Finding(f"check-{i}", "warn", "message", f"remedy {i}") for i in range(30)]
    assert len(advise([], many)) == MOST_FIXES


def test_what_is_as_good_as_it_can_be_is_not_to_be_mended():
    nothing, some = (Attribution("answer_in_prompt_fraction", value, -2.0, "") for value in (0.0, 0.3))
    assert advise([nothing], []) == ()
    assert advise([some], [])[0].feature == "answer_in_prompt_fraction"
    # Warm-up has no better end: none at all may well be what is wrong.
    assert advise([Attribution("warmup_fraction", 0.0, -2.0, "")], [])[0].feature == "warmup_fraction"
