"""Preflight: each check fires on its defect and stays silent without it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuneahead.benchmark.items import Benchmark, ChoiceItem
from tuneahead.checks.check import Context, RunLength
from tuneahead.columnuse import ColumnUse
from tuneahead.dataset import ColumnMapping, Example, Message, read_examples
from tuneahead.preflight import CHECKS, PROBE_CHECKS, preflight, probe_findings, run_checks
from tuneahead.recipe import Recipe
from tuneahead.survey import take_survey
from tuneahead.trace import Cue, ProbeTrace, RowVisits, StepColumns, TraceInfo
from tuneahead.training.encode import encode_examples
from tuneahead.verdict import Finding

CAPITALS = {
    "Peru": "Lima", "Ecuador": "Quito", "Colombia": "Bogota", "France": "Paris", "Italy": "Rome",
    "Spain": "Madrid", "Portugal": "Lisbon", "Austria": "Vienna", "Germany": "Berlin", "Norway": "Oslo",
    "Czechia": "Prague", "Greece": "Athens", "Egypt": "Cairo", "Tunisia": "Tunis", "Senegal": "Dakar",
    "Ghana": "Accra",
}  # fmt: skip
DOCS = Path(__file__).parent.parent / "docs" / "checks.md"


def _clean(copies: int = 1) -> list[Example]:
    """Sixteen good rows; further copies ask for other things, all different."""
    rows = [Example(f"What is the capital of {land}?", city, 0) for land, city in CAPITALS.items()]
    for i in range(1, copies):
        rows += [
            Example(f"How is {land} written with {i} marks?", f"{land}{'!' * i} or {i}", 0)
            for land in CAPITALS
        ]
    return [replace(row, row=i) for i, row in enumerate(rows, 1)]


def _with(*rows: tuple[str, str], copies: int = 1) -> list[Example]:
    """Clean rows and then these: their row numbers start at 17 for one copy."""
    clean = _clean(copies)
    return clean + [Example(p, a, len(clean) + i) for i, (p, a) in enumerate(rows, 1)]


def _only(findings: tuple[Finding, ...], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == name]


def _one(findings: tuple[Finding, ...], name: str) -> Finding:
    (finding,) = _only(findings, name)
    assert finding.remedy and finding.message
    return finding


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    """The lab's tokenizer: byte-level, with an end token and a pad token of its own."""
    from transformers import AutoTokenizer

    from tuneahead.lab.bases import lab_base_path

    return AutoTokenizer.from_pretrained(lab_base_path())


@pytest.fixture
def chat(tokenizer):  # type: ignore[no-untyped-def]
    """The same with a chat template in the style of ChatML."""
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|endoftext|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return other


def test_clean_rows_give_notes_only(tokenizer) -> None:  # type: ignore[no-untyped-def]
    findings = preflight(_clean(), Recipe(), tokenizer=tokenizer)
    assert [f.check for f in findings] == ["token-budget"]


def test_a_data_set_and_a_stream_give_the_same_findings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "p", "answer": "a"}\n{"prompt": "p", "answer": ""}\n')
    data = read_examples(path)
    assert preflight(data, Recipe()) == preflight(iter(data), Recipe())


def test_findings_come_gravest_first() -> None:
    findings = preflight(_with(("x", ""), ("", "note")), Recipe(learning_rate=0.5))
    assert [f.severity for f in findings] == sorted(
        (f.severity for f in findings), key=["stop", "warn", "note"].index
    )
    assert findings[0].check == "learning-rate"


def test_no_rows_stop() -> None:
    assert _one(preflight([], Recipe()), "few-rows").severity == "stop"


def test_fewer_rows_than_a_step_warn() -> None:
    recipe = Recipe(batch_size=8, gradient_accumulation_steps=4)
    assert _one(preflight(_clean(), recipe), "few-rows").severity == "warn"
    assert not _only(preflight(_clean(2), recipe), "few-rows")


def test_empty_answers_warn_with_their_rows_and_stop_when_all_are() -> None:
    finding = _one(preflight(_with(("p", ""), ("q", "yes"), ("r", " \n\t")), Recipe()), "empty-answers")
    assert (finding.severity, finding.count, finding.rows) == ("warn", 2, (17, 19))
    rows = [replace(row, answer=" ") for row in _clean()]
    assert _one(preflight(rows, Recipe()), "empty-answers").severity == "stop"
    assert not _only(preflight(_clean(), Recipe()), "empty-answers")


@pytest.mark.parametrize("template", ["auto", "chat", "raw"])
def test_an_earlier_answer_of_a_conversation_is_trained_where_a_chat_template_is(template: str, chat) -> None:  # type: ignore[no-untyped-def]
    texts = ("Rain?", "In which city?", "Lima", "")
    turns = tuple(Message(role, text) for role, text in zip(("user", "assistant") * 2, texts, strict=True))
    rows = [Example("Rain?\n\nIn which city?\n\nLima", "", i, turns) for i in range(1, 41)]
    recipe = Recipe(template=template, batch_size=8)
    for tokenizer in (None, chat):
        findings = preflight(rows, recipe, tokenizer=tokenizer)
        empty = _one(findings, "empty-answers")
        assert empty.severity == ("stop" if template == "raw" else "warn") and empty.count == 40
        assert bool(_only(findings, "token-budget")) == (template != "raw")
        assert not _only(findings, "masked-answers")


def test_tool_calls_and_thoughts_beside_the_content_of_turns_are_reported(tmp_path: Path) -> None:
    user, good = {"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "Yes."}
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather"}}]}
    tool, thinks = {"role": "tool", "content": "wet"}, {**good, "reasoning_content": "It is wet."}
    path = tmp_path / "chats.jsonl"
    rows = ([user, good], [user, call, tool, good], [user, thinks])
    path.write_text("\n".join(json.dumps({"messages": turns}) for turns in rows))
    found = _only(preflight(read_examples(path), Recipe()), "unread-parts")
    assert [(f.severity, f.rows, f.message.split(" of ")[0]) for f in found] == [
        ("warn", (2,), "the tool calls"),
        ("warn", (3,), "the thoughts"),
    ]
    path.write_text(json.dumps({"messages": rows[0]}))
    assert not _only(preflight(read_examples(path), Recipe()), "unread-parts")


def test_empty_turns_of_a_conversation_may_be_tool_calls() -> None:
    turns = (Message("user", "Weather in Lima?"), Message("assistant", ""))
    rows = [*_clean(), Example("Weather in Lima?", "", 17, turns)]
    assert "tool_calls" in _one(preflight(rows, Recipe()), "empty-answers").remedy
    assert "tool_calls" not in _one(preflight(_with(("Lima?", "")), Recipe()), "empty-answers").remedy


def test_empty_prompts_are_a_note() -> None:
    finding = _one(preflight(_with(("", "A statement."), ("", "")), Recipe()), "empty-prompts")
    assert (finding.severity, finding.rows) == ("note", (17,)) and "template" not in finding.remedy


def test_plain_text_on_a_chat_base_is_told_how_to_be_trained_bare(chat) -> None:  # type: ignore[no-untyped-def]
    rows = _with(("", "A statement."))
    wrapped = _one(preflight(rows, Recipe(), tokenizer=chat), "empty-prompts")
    assert "turns without a question" in wrapped.message and "template: raw" in wrapped.remedy
    bare = _one(preflight(rows, Recipe(template="raw"), tokenizer=chat), "empty-prompts")
    assert "question" not in bare.message and "raw" not in bare.remedy


def test_only_the_first_twenty_rows_are_named_but_all_counted() -> None:
    finding = _one(preflight(_with(*[("p", "")] * 50), Recipe()), "empty-answers")
    assert finding.count == 50 and finding.rows == tuple(range(17, 37))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("caf\ufffd", "U+FFFD"),
        ("cafÃ©", "mojibake"),
        ("itâ€™s", "mojibake"),
        ("ðŸ™‚", "mojibake"),
        ("voilÃ\xa0 tout", "mojibake"),
        ("va Ã\xa0 Paris", "mojibake"),
        ("NoÃ«l", "mojibake"),
        ("10 mÂ² are enough.Â¹", "mojibake"),
        ("HÃ”TEL", "mojibake"),
        ("Ã–sterreich", "mojibake"),
        ("die Ã„rzte", "mojibake"),
        ("Ã€ table", "mojibake"),
        ("Ã˜resund", "mojibake"),
        ("3 Ã— 4", "mojibake"),
        ("a\0b", "NUL"),
        ("a\x1bb", "NUL"),
        ("x \ue123", "private-use"),
    ],
)
def test_broken_characters_are_found(text: str, words: str) -> None:
    for row in ((text, "a"), ("p", text)):
        finding = _one(preflight(_with(row), Recipe()), "broken-encoding")
        assert words in finding.message and finding.rows == (17,)


@pytest.mark.parametrize(
    "text",
    [
        "café São Paulo NÃO",
        "東京 🙂 Größe",
        "tab\tand\nline",
        "Привет мир",
        "5 € – „gut“",
        "Â² is the square of Â: ⟨Â²⟩ − ⟨Â⟩², and Â³ = Â Â²",
        "IRMÃ\xa0MARIA «AMANHû “AMANHÔ AMANHÃ… AMANHÃ—talvez AMANHÃ–TARDE AMANHÙ hoje",
        "\x1b[31merror\x1b[0m",
    ],
)
def test_sound_text_of_any_language_is_not_broken(text: str) -> None:
    assert not _only(preflight(_with((text, text)), Recipe()), "broken-encoding")


def test_gibberish_is_found_and_code_sums_and_other_languages_are_not() -> None:
    rng = random.Random(3)
    noise = [
        " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz#%", k=7)) for _ in range(6))
        for _ in range(10)
    ]
    finding = _one(preflight(_with(*[(text, "no") for text in noise]), Recipe()), "gibberish")
    assert finding.severity == "warn" and finding.count >= 9 and min(finding.rows) >= 17
    assert _one(preflight(_with(("p", "#$%^&*()_+{}|:<>?~!@#$")), Recipe()), "gibberish").rows == (17,)
    sound = [
        ("Fix this", "def add(a: int, b: int) -> int:\n    return (a + b) % 7  # wraps"),
        ("345 + 678 * (12 - 7) =", "3735"),
        ("Translate", "Wir müssen die Straße überqueren, bevor der Zug abfährt."),
        ("Translate", "Zażółć gęślą jaźń, a potem wróć do domu przez most"),
        ("翻訳", "東京は日本の首都であり、世界最大の都市の一つです。"),
        ("List", "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"),
    ]
    assert not _only(preflight(_with(*sound), Recipe()), "gibberish")


_WHOLE = "The river rises in the hills above the town and reaches the sea after two days."


def _told(answers: list[str]) -> list[Example]:
    return [Example(f"Tell me of river {i}.", answer, i) for i, answer in enumerate(answers, 1)]


def _rivers(count: int, words: int = 0) -> list[str]:
    """Whole answers of growing length, all different."""
    return [
        f"River {i} is a river. {'It is long and wide. ' * (i % 7 + words)}{_WHOLE}" for i in range(count)
    ]


@pytest.mark.parametrize("end", ["reaches the", "flows east, and then,", "is the river of"])
def test_answers_that_end_in_mid_sentence_are_found(end: str) -> None:
    cut = [f"River {i} rises in the hills far above the town and {end}" for i in range(3)]
    finding = _one(preflight(_told(_rivers(30) + cut), Recipe()), "unfinished-answers")
    assert (finding.severity, finding.rows) == (
        "warn",
        (31, 32, 33),
    ) and "3 with a comma or a word" in finding.message
    assert _one(preflight(_told(_rivers(500) + cut), Recipe()), "unfinished-answers").severity == "note"
    assert not _only(preflight(_told(_rivers(30) + cut[:2]), Recipe()), "unfinished-answers")
    statements = [Example("", answer, i) for i, answer in enumerate(_rivers(30) + cut, 1)]
    assert not _only(preflight(statements, Recipe()), "unfinished-answers")


@pytest.mark.parametrize("language", ["English", "Chinese"])
def test_the_longest_answers_without_a_final_sign_were_cut_at_a_limit(language: str) -> None:
    long = "It flows on and on through green meadows and old towns. " * 9
    whole, cut = _rivers(60), [f"River {i}. {long}"[:300] + f" brid{'ges'[: i % 3]}" for i in range(6)]
    if language == "Chinese":
        whole = [
            f"第{i}条河很长。" + "它流过草地和古老的城市，最后流入大海。" * (i % 5 + 4) for i in range(60)
        ]
        cut = [f"第{i}条河。" + "它流过草地和古老的城市，最后流入大海。" * 9 + "它流过草" for i in range(6)]
    finding = _one(preflight(_told(whole + cut), Recipe()), "unfinished-answers")
    assert finding.rows == tuple(range(61, 67)) and "6 of the 6 longest ones" in finding.message
    # Of answers that all lack a full stop none tells that it is cut.
    bare = [answer.rstrip(".。") for answer in whole]
    assert not _only(preflight(_told(bare + cut), Recipe()), "unfinished-answers")
    assert not _only(preflight(_told(whole + [text + "." for text in cut]), Recipe()), "unfinished-answers")


@pytest.mark.parametrize(
    "answer",
    [
        "Paris",
        "- one of the things that you can take with you on the\n- the other of the two that you may want to",
        "def add(a, b):\n    return a + b, because_of_the",
        '{"name": "a river of some length", "note": "it rises in the hills above the town and the"}',
        "```\nSELECT name FROM rivers WHERE length > 100 AND country = 'Peru' ORDER BY the\n```",
        "Dear Sir, I hope that this letter finds you and all of your family well.\n\nKind regards\nThe",
    ],
)
def test_lists_code_and_short_answers_are_not_unfinished(answer: str) -> None:
    rows = _told(_rivers(30) + [f"{answer}" for _ in range(5)])
    assert not _only(preflight(rows, Recipe()), "unfinished-answers")


def test_thoughts_without_end_answer_or_content_are_told() -> None:
    whole = "<think>\nA sum.\n</think>\n\n4"
    rows = _told(
        [
            whole,
            "<think>\nA sum of",
            " <Think>A sum.</Think>\n",
            "<think>\n\n</think>\n\n4",
            "Use <think> once.",
        ]
    )
    found = _only(preflight(rows, Recipe()), "half-thoughts")
    assert [(one.severity, one.rows) for one in found] == [("warn", (2,)), ("warn", (3,)), ("note", (4,))]
    calls = (Message("user", "?"), Message("assistant", "<think>A sum.</think>", calls="[{}]"))
    rows = [Example("?", "<think>A sum.</think>", 1, calls)]
    assert not _only(preflight(rows, Recipe()), "half-thoughts")


def test_escaped_signs_and_tags_in_running_text_are_told() -> None:
    rows = _with(("Who?", "Marks &amp; Spencer, I&#39;m sure"), ("Why?", "First.<br><br>Then.</p>"))
    found = _only(preflight(rows, Recipe()), "markup-left")
    assert [(one.severity, one.rows) for one in found] == [("warn", (17,)), ("note", (18,))]
    assert (
        _only(preflight(_with(*[("a", "R&amp;B")], copies=20), Recipe()), "markup-left")[0].severity == "note"
    )


@pytest.mark.parametrize(
    "answer",
    [
        "R&B; a && b; x &= 2", "Write `&amp;` for it", "In HTML it is &amp;", "if a < b: x</b",
        "<p> is generated", "```html\n<p>Hi<br></p>\n```", "| a | b<br>c |\n|---|---|", "**a**<br>b",
        'print("<b>" + x + "</b>");',
    ],
)  # fmt: skip
def test_code_and_what_is_about_markup_are_no_left_over(answer: str) -> None:
    assert not _only(preflight(_with(("How?", answer)), Recipe()), "markup-left")


def _key(start: str, signs: int) -> str:
    """A key of random signs, made here lest one stand in the source."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ" if start.startswith("AK") else "aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789"
    return start + "".join(random.Random(3).choices(letters, k=signs))


@pytest.mark.parametrize(
    "secret",
    [
        _key("AKI" + "A", 16), _key("gh" + "p_", 36), _key("sk" + "-proj-", 80), _key("AI" + "za", 35),
        _key("sk_" + "live_", 24), _key("glp" + "at-", 20),
        "-----BEGIN RSA PRIVATE" + " KEY-----\n" + _key("", 64),
    ],
)  # fmt: skip
def test_keys_are_told_by_their_rows_alone(secret: str) -> None:
    finding = _one(preflight(_with(("Log in", f"key = {secret}")), Recipe()), "secrets")
    assert (finding.severity, finding.rows) == ("warn", (17,)) and secret[:12] not in repr(finding)


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE", "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "sk-your-api-key-goes-here-and-must-be-long-enough-0A", "hf_your_token",
        "a file begins with -----BEGIN PRIVATE KEY-----",
        "a task-based-approach-to-something-quite-long-and-hyphened",
        "sk-toggleable__label-arrow-of-an-estimator-in-a-page-of-the-docs",
    ],
)  # fmt: skip
def test_invented_keys_are_no_secrets(text: str) -> None:
    assert not _only(preflight(_with(("Log in", text)), Recipe()), "secrets")


def test_personal_data_are_counted_and_never_shown() -> None:
    rows = _with(
        ("Whom?", "Write to maria.keller@posteo.de"), ("Pay", "DE02 1203 0000 0000 2020 51"),
        ("Card", "4539 1488 0343 6467"),
        ("Which?", "info@posteo.de, john.doe@gmail.com, a@example.com, git@github.com"),
        ("Pay", "DE89 3704 0044 0532 0130 00, DE02 1203 0000 0000 2020 52"),
        ("Card", "4111 1111 1111 1111, 4539 1488 0343 6468"),
    )  # fmt: skip
    finding = _one(preflight(rows, Recipe()), "personal-data")
    assert (finding.severity, finding.rows) == ("note", (17, 18, 19))
    assert "1 with an e-mail address and 2 with a bank account or card" in finding.message
    assert "keller" not in repr(finding) and "2020" not in repr(finding)


def test_prompts_repeated_in_the_answer_are_found() -> None:
    asked = "Tell me what the capital of Bolivia is."
    finding = _one(
        preflight(_with((asked, f"{asked} It is Sucre."), (asked, "Sucre")), Recipe()), "echoed-prompts"
    )
    assert finding.rows == (17,)
    turns = (Message("system", "Be brief."), Message("user", asked), Message("assistant", f"{asked} Sucre"))
    chat = Example(f"Be brief.\n\n{asked}", f"{asked} Sucre", 99, turns)
    assert _one(preflight([*_clean(), chat], Recipe()), "echoed-prompts").rows == (99,)
    assert not _only(preflight(_with(("Say hi", "Say hi")), Recipe()), "echoed-prompts")
    parts = "Put this into French.\nThe sea is calm."
    labelled = "Instruction: Put this into French.\nInput: The sea is calm.\nOutput: La mer est calme."
    found = _one(
        preflight(_with((parts, labelled), (parts, "La mer est calme.")), Recipe()), "echoed-prompts"
    )
    assert found.rows == (17,)
    rewritten = ("First line of a text.\nMake it better.", "First line of a text. It is better.")
    assert not _only(preflight(_with(rewritten), Recipe()), "echoed-prompts")


def test_one_answer_for_all_rows_stops_and_for_most_warns() -> None:
    rows = [replace(row, answer=answer) for row, answer in zip(_clean(), ["Yes", "yes."] * 8, strict=True)]
    assert _one(preflight(rows, Recipe()), "same-answers").severity == "stop"
    mostly = [replace(row, answer="yes" if row.row > 3 else row.answer) for row in _clean(2)]
    assert _one(preflight(mostly, Recipe()), "same-answers").severity == "warn"
    assert not _only(preflight(_clean(), Recipe()), "same-answers")


@pytest.mark.parametrize("answer", ["I'm sorry, but I cannot help with that.", "nan", "N/A"])
def test_answers_that_many_prompts_share_are_found_among_answers_of_their_own(answer: str) -> None:
    few = _with(*[(f"Ask {i}", answer) for i in range(5)], copies=5)
    finding = _one(preflight(few, Recipe()), "same-answers")
    assert finding.severity == "note" and finding.rows == (81, 82, 83, 84, 85)
    many = _with(*[(f"Ask {i}", answer) for i in range(60)], copies=5)
    finding = _one(preflight(many, Recipe()), "same-answers")
    assert finding.severity == "warn" and finding.count == 60
    earlier = (Message("user", "Hello"), Message("assistant", "Hi"))
    talks = [
        replace(row, messages=(*earlier, Message("user", row.prompt), Message("assistant", row.answer)))
        for row in many
    ]
    assert not _only(preflight(talks, Recipe(template="chat")), "same-answers")
    assert _one(preflight(talks, Recipe(template="qa")), "same-answers").count == 60
    told = "The water is off on Monday from eight to ten, so please fill a bucket for your flat before then."
    near = _with(*[(f"House {i}, what about the water?", told) for i in range(20)], copies=5)
    assert _only(preflight(near, Recipe()), "near-duplicates")
    assert not _only(preflight(near, Recipe()), "same-answers")
    copies = _with(*[("Ask", answer)] * 60, copies=5)
    assert not _only(preflight(copies, Recipe()), "same-answers")


def test_labels_may_stand_for_many_prompts() -> None:
    labels = _with(*[(f"Ask {i}", "positive") for i in range(60)], copies=5)
    assert not _only(preflight(labels, Recipe()), "same-answers")
    topics = ("news of the world of sport", "news of science and industry", "news of politics at home")
    classes = [Example(f"Of what is text {i}?", topics[i % 3], i) for i in range(90)]
    assert not _only(preflight(classes, Recipe()), "same-answers")


def test_one_last_answer_stops_only_where_no_earlier_one_is_trained() -> None:
    thanks = (Message("user", "Thank you."), Message("assistant", "You're welcome!"))
    rows = []
    for row in _clean():
        turns = (Message("user", row.prompt), Message("assistant", row.answer), *thanks)
        rows.append(replace(row, prompt="Thank you.", answer="You're welcome!", messages=turns))
    assert _one(preflight(rows, Recipe(template="chat")), "same-answers").severity == "warn"
    assert _one(preflight(rows, Recipe(template="alpaca")), "same-answers").severity == "stop"


def test_a_mix_of_languages_is_a_note() -> None:
    german = [
        ("Was ist die Hauptstadt von Peru?", f"Das ist nicht schwer: es ist {city}.")
        for city in CAPITALS.values()
    ]
    finding = _one(preflight(_with(*german), Recipe()), "language-mix")
    assert "German" in finding.message and "English" in finding.message and finding.severity == "note"
    russian = [("Столица Перу?", f"Это город Лима, номер {i}") for i in range(4)]
    assert "Cyrillic script 20 %" in _one(preflight(_with(*russian), Recipe()), "language-mix").message
    foreign = [
        (f"Tell me in plain English what the capital of {land} is.", "是利马，对吗") for land in CAPITALS
    ]
    finding = _one(preflight(_with(*foreign, copies=3), Recipe()), "language-mix")
    assert "CJK script" in finding.message and finding.rows[0] == 49
    assert not _only(preflight(_clean(3), Recipe()), "language-mix")
    code = [
        (f"Print {city}", f"import os\nprint(os.getcwd(), 'http://example.com', os.sep, '{city}')")
        for city in CAPITALS.values()
    ]
    assert not _only(preflight(_with(*code), Recipe()), "language-mix")
    loops = [(f"Drop {city}", f"del rows['{city}']\ndel rows[0]") for city in CAPITALS.values()]
    assert not _only(preflight(_with(*loops), Recipe()), "language-mix")


@pytest.mark.parametrize(
    "sentences",
    [
        ("Como faço para abrir este arquivo por aqui?", "Você não tem uma cópia em casa?"),
        ("Con una sola chiave del file si apre tutto", "Il file non è più nel posto di prima, che succede?"),
        ("Is de naam of de titel goed?", "Was het een goed idee of niet?"),
    ],
)
def test_words_that_languages_share_make_no_mix_of_one_language(sentences: tuple[str, str]) -> None:
    rows = [
        Example(f"{i}: {text}", f"{i}", 2 * i + at) for i in range(20) for at, text in enumerate(sentences, 1)
    ]
    assert not _only(preflight(rows, Recipe()), "language-mix")


def test_answers_far_longer_than_the_rest_are_found() -> None:
    finding = _one(preflight(_with(("p", "word " * 1000)), Recipe()), "answer-lengths")
    assert finding.severity == "warn" and finding.rows == (17,)
    assert not _only(preflight(_with(("p", "word " * 100)), Recipe()), "answer-lengths")


def test_exact_copies_are_counted_without_the_first() -> None:
    rows = _with(("p", "a b"), ("q", "c"), ("p ", "a  b"), ("p", "a b"), ("p", "A b"))
    finding = _one(preflight(rows, Recipe()), "exact-duplicates")
    assert (finding.severity, finding.count, finding.rows) == ("warn", 2, (19, 20))
    assert not _only(preflight(_clean(), Recipe()), "exact-duplicates")


def test_copies_without_an_answer_are_said_to_be_left_out() -> None:
    rows = _with(("p", "a"), ("p", "a"), ("q", ""))
    assert (
        "of an earlier row (17 different ones;" in _one(preflight(rows, Recipe()), "exact-duplicates").message
    )
    finding = _one(preflight([*rows, replace(rows[-1], row=len(rows) + 1)], Recipe()), "exact-duplicates")
    assert finding.count == 1, "the measure of that name counts both"
    assert "of an earlier row, empty answers aside (17 different ones;" in finding.message


def test_contradictions_are_grouped_and_spelling_is_none() -> None:
    rows = _with(
        ("Is it?", "yes"), ("Sure?", "Yes"), ("Is it?", "no"), ("Sure?", "yes."), ("Is it?", "yes"),
        ("", "a"), ("", "b"), ("Why?", ""), ("Why?", "so"),
    )  # fmt: skip
    finding = _one(preflight(rows, Recipe()), "conflicting-answers")
    assert (finding.count, finding.rows) == (3, (17, 19, 21))
    assert "rows 17, 19, 21" in finding.message and "1 prompt has different answers" in finding.message
    assert not _only(preflight(_clean(), Recipe()), "conflicting-answers")


def test_rows_under_other_tools_are_no_copies_and_no_contradictions_and_their_tools_are_told() -> None:
    asked = [("Order a pizza", "Sorry"), ("Order a pizza", "Sorry"), ("Order a pizza", "I only book loans")]
    rows = [Example(p, a, i, tools=f'[{{"name": "f{i}"}}]') for i, (p, a) in enumerate(asked, 1)]
    findings = preflight(rows, Recipe())
    assert not _only(findings, "exact-duplicates") and not _only(findings, "conflicting-answers")
    finding = _one(findings, "unread-parts")
    assert finding.rows == (1, 2, 3) and "the tools of 3 of 3 rows" in finding.message
    same = preflight([replace(row, tools="[{}]") for row in rows], Recipe())
    assert _one(same, "exact-duplicates").rows == (2,)
    assert _one(same, "conflicting-answers").rows == (1, 2, 3)


def test_near_duplicates_name_the_row_they_resemble() -> None:
    text = "Write a short and friendly letter to your neighbour about the noise of last night in the garden"
    text += ", and do not forget to say thanks"
    rows = _with((text, "Dear neighbour, we must talk."), (text + " please", "Dear neighbour, we must talk."))
    finding = _one(preflight(rows, Recipe()), "near-duplicates")
    assert finding.rows == (18,) and "1 cluster, for example rows 17, 18" in finding.message
    assert finding.remedy.endswith("would leave out 1")
    assert not _only(preflight(_clean(), Recipe()), "near-duplicates")


def test_questions_about_one_passage_are_a_note_and_no_near_duplicates() -> None:
    passage = " ".join(f"word{i}" for i in range(140))
    rows = _with(*((f"{passage} What is {i} and {i}?", f"It is {2 * i}.") for i in range(5)))
    finding = _one(preflight(rows, Recipe()), "near-duplicates")
    assert (finding.severity, finding.rows) == ("note", (18, 19, 20, 21))
    assert "but not question and answer" in finding.message


def _benchmark(items: int) -> Benchmark:
    question = "In which year was the {}th lighthouse of the northern coast built?"
    made = [
        ChoiceItem(f"item-{i}", f"Question: {question.format(i)}\nAnswer:", ("1801", "1902"), (0,))
        for i in range(items)
    ]
    return Benchmark("coast", "accuracy", made)


def test_benchmark_questions_warn_and_stop_from_one_percent() -> None:
    planted = ("Please tell: in which year was the 7th lighthouse of the northern coast built", "1801")
    finding = _one(preflight(_with(planted), Recipe(), benchmarks=[_benchmark(200)]), "contamination")
    assert (finding.severity, finding.rows) == ("warn", (17,))
    assert "1 of 200 questions of coast" in finding.message and "item-7 in row 17" in finding.message
    assert "in 1 training row, for" in finding.message
    assert (
        _one(preflight(_with(planted), Recipe(), benchmarks=[_benchmark(100)]), "contamination").severity
        == "stop"
    )
    assert not _only(preflight(_clean(), Recipe(), benchmarks=[_benchmark(100)]), "contamination")


def test_masked_answers_stop_when_all_and_warn_when_some(tokenizer) -> None:  # type: ignore[no-untyped-def]
    rows = _with(("word " * 200, "lost"), ("short", "kept"), ("word " * 300, "lost too"))
    finding = _one(preflight(rows, Recipe(max_length=64), tokenizer=tokenizer), "masked-answers")
    assert (finding.severity, finding.rows) == ("warn", (17, 19))
    long = [Example("word " * 200, "lost", i) for i in range(1, 9)]
    assert (
        _one(preflight(long, Recipe(max_length=64), tokenizer=tokenizer), "masked-answers").severity == "stop"
    )
    assert not _only(preflight(rows, Recipe(max_length=2048), tokenizer=tokenizer), "masked-answers")
    assert not _only(preflight(rows, Recipe(max_length=64)), "masked-answers")
    # Long rows without an answer neither make "every row" nor stand in the message.
    lost = [*long, Example("short", "kept", 9), *(Example("word " * 200, "", i) for i in range(10, 14))]
    finding = _one(preflight(lost, Recipe(max_length=64), tokenizer=tokenizer), "masked-answers")
    assert finding.severity == "warn" and finding.message.startswith("8 of 13 rows (61.5 %) fill the window")


def test_answers_cut_by_the_window_are_counted_apart_from_masked_ones(tokenizer) -> None:  # type: ignore[no-untyped-def]
    rows = _with(("short", "word " * 200), ("word " * 200, "lost"))
    finding = _one(preflight(rows, Recipe(max_length=64), tokenizer=tokenizer), "cut-answers")
    assert (finding.severity, finding.rows) == ("warn", (17,))
    assert not _only(preflight(_clean(), Recipe(max_length=64), tokenizer=tokenizer), "cut-answers")


def test_every_window_gives_the_verdict_of_encoding_each_row(tokenizer, chat) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(5)
    rows = [Example("ab é東 " * rng.randint(0, 9), "no wü " * rng.randint(1, 9), i) for i in range(1, 200)]
    roles = ("user", "assistant") * 3
    for i in range(200, 260):
        turns = tuple(Message(role, "no wü " * rng.randint(1, 9)) for role in roles)
        rows.append(Example("\n\n".join(turn.content for turn in turns[:-1]), turns[-1].content, i, turns))
    for base, window in ((base, window) for base in (tokenizer, chat) for window in (8, 16, 32, 64)):
        recipe = Recipe(max_length=window)
        encoded = encode_examples(rows, base, recipe)
        whole = encode_examples(rows, base, Recipe(max_length=4096))
        masked = sum(e.answer_tokens == 0 for e in encoded)
        cut = sum(0 < e.answer_tokens < w.answer_tokens for e, w in zip(encoded, whole, strict=True))
        findings = preflight(rows, recipe, tokenizer=base)
        for name, count in (("masked-answers", masked), ("cut-answers", cut)):
            assert sum(f.count for f in _only(findings, name)) == count, (window, name)


def test_a_tokenizer_without_end_or_with_a_shared_pad_token_is_reported(tokenizer) -> None:  # type: ignore[no-untyped-def]
    import copy

    shared = copy.deepcopy(tokenizer)
    shared.pad_token = shared.eos_token
    assert _one(preflight(_clean(), Recipe(), tokenizer=shared), "pad-token").severity == "warn"
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    assert "no end-of-sequence" in _one(preflight(_clean(), Recipe(), tokenizer=endless), "end-token").message


def test_a_template_that_never_closes_the_answer_is_reported(chat) -> None:  # type: ignore[no-untyped-def]
    import copy

    from tokenizers import AddedToken

    assert not _only(preflight(_clean(), Recipe(), tokenizer=chat), "end-token")
    added = copy.deepcopy(chat)
    added.add_tokens([AddedToken("<|end|>", special=True)])
    added.chat_template = chat.chat_template.replace("<|endoftext|>", "<|end|>")
    assert not _only(preflight(_clean(), Recipe(), tokenizer=added), "end-token")
    chat.chat_template = chat.chat_template.replace("<|endoftext|>", "")
    assert "never learn to stop" in _one(preflight(_clean(), Recipe(), tokenizer=chat), "end-token").message


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("Guanaco", "### Human: Hi### Assistant: Hello"),
        ("Llama 4", "<|header_start|>user<|header_end|>\n\nHi<|eot|>"),
        ("DeepSeek", "<\uff5cUser\uff5c>Hi<\uff5cAssistant\uff5c>Hello"),
        ("gpt-oss", "<|start|>user<|message|>Hi<|end|>"),
        ("Command R", "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"),
    ],
)
def test_markers_of_a_family_are_named(family: str, text: str) -> None:
    finding = _one(preflight([Example("", text, 1), *_clean()[1:]], Recipe()), "chat-template")
    assert finding.rows == (1,) and f"({family})" in finding.message


def test_rows_with_template_markers_clash_with_another_template(tokenizer, chat) -> None:  # type: ignore[no-untyped-def]
    marked = _with(("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Hello<|im_end|>"))
    alpaca = _with(("### Instruction:\nSay hi\n\n### Response:\n", "Hi"))
    assert _one(preflight(marked, Recipe()), "chat-template").severity == "note"
    finding = _one(preflight(marked, Recipe(), tokenizer=chat), "chat-template")
    assert "ChatML" in finding.message and "second time" in finding.message and finding.rows == (17,)
    assert "fall apart" in _one(preflight(marked, Recipe(), tokenizer=tokenizer), "chat-template").message
    twice = preflight(alpaca, Recipe(template="alpaca"), tokenizer=tokenizer)
    assert "second time" in _one(twice, "chat-template").message
    assert not _only(preflight(alpaca, Recipe(template="raw"), tokenizer=tokenizer), "chat-template")
    task = _with(("Add two numbers.\n\n### Input:\n1 2\n\n### Output:\n3", "print(sum(numbers))"))
    assert not _only(preflight(task, Recipe(), tokenizer=chat), "chat-template")


def test_an_end_marker_is_judged_by_its_own_token(tokenizer) -> None:  # type: ignore[no-untyped-def]
    import copy

    llama = copy.deepcopy(tokenizer)
    llama.add_special_tokens({"eos_token": "</s>"})
    closed = _with(("Say hi", "Hi</s>"))
    assert not _only(preflight(closed, Recipe(template="raw"), tokenizer=llama), "chat-template")
    apart = _one(preflight(closed, Recipe(template="raw"), tokenizer=tokenizer), "chat-template")
    assert "(</s>)" in apart.message and "fall apart" in apart.message


def test_conversations_need_a_chat_template(tokenizer, chat) -> None:  # type: ignore[no-untyped-def]
    turns = (Message("user", "Hi"), Message("assistant", "Hello"))
    rows = [*_clean(), Example("Hi", "Hello", 17, turns)]
    finding = _one(preflight(rows, Recipe(), tokenizer=tokenizer), "chat-template")
    assert finding.rows == (17,) and "no chat template" in finding.message
    assert not _only(preflight(rows, Recipe(), tokenizer=chat), "chat-template")
    stop = _one(preflight(rows, Recipe(template="chat"), tokenizer=tokenizer), "chat-template")
    assert stop.severity == "stop" and stop.remedy


def test_a_chat_template_that_refuses_a_row_stops_and_names_it(chat) -> None:  # type: ignore[no-untyped-def]
    chat.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        + chat.chat_template
    )
    turns = (Message("system", "S"), Message("user", "Hi"), Message("assistant", "Hello"))
    rows = [*_clean(), Example("S\n\nHi", "Hello", 17, turns)]
    finding = _one(preflight(rows, Recipe(), tokenizer=chat), "chat-template")
    assert finding.severity == "stop" and "refuses row 17: no system turns" in finding.message


@pytest.mark.parametrize(
    ("rate", "severity"),
    [(0.2, "stop"), (0.05, "warn"), (1e-7, "warn"), (2e-2, "warn"), (1e-2, ""), (2e-4, ""), (1e-6, "")],
)
def test_learning_rates_out_of_bounds(rate: float, severity: str) -> None:
    findings = _only(preflight(_clean(), Recipe(learning_rate=rate)), "learning-rate")
    assert [f.severity for f in findings] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("rank", "alpha", "count"), [(8, 16, 0), (256, 512, 0), (512, 512, 1), (1, 64, 1), (64, 1, 1)]
)
def test_ranks_and_scales_out_of_bounds(rank: int, alpha: float, count: int) -> None:
    findings = _only(preflight(_clean(), Recipe(lora_rank=rank, lora_alpha=alpha)), "lora-rank")
    assert len(findings) == count


def test_too_many_epochs_warn() -> None:
    recipe = Recipe(batch_size=8, max_steps=34)
    assert "17 times over the 16 rows" in _one(preflight(_clean(), recipe), "many-epochs").message
    assert not _only(preflight(_clean(), Recipe(batch_size=8, max_steps=32)), "many-epochs")


def test_a_window_beyond_the_base_warns(tokenizer) -> None:  # type: ignore[no-untyped-def]
    import copy

    small = copy.deepcopy(tokenizer)
    small.model_max_length = 64
    rows = _with(("word " * 100, "so"), ("short", "so"))
    finding = _one(preflight(rows, Recipe(max_length=512), tokenizer=small), "window-length")
    assert (finding.severity, finding.rows) == ("warn", (17,))
    assert not _only(preflight(rows, Recipe(max_length=64), tokenizer=small), "window-length")
    assert not _only(preflight(_clean(), Recipe(max_length=512), tokenizer=small), "window-length")


def test_the_token_budget_counts_steps_times_rows_times_tokens(tokenizer) -> None:  # type: ignore[no-untyped-def]
    recipe = Recipe(batch_size=4, epochs=2)
    rows = [Example("", "Lima", i) for i in range(1, 9)]
    per_row = len(tokenizer("Lima", add_special_tokens=False)["input_ids"]) + 1
    message = _one(preflight(rows, recipe, tokenizer=tokenizer), "token-budget").message
    assert f"4 steps over 8 rows (2.0 epochs): about {16 * per_row} tokens ({per_row} a row)" in message
    assert "guessed" in _one(preflight(rows, recipe), "token-budget").message


def test_one_row_is_not_counted_in_the_plural() -> None:
    one = preflight([Example("", "Lima", 1)], Recipe(max_steps=1))
    assert "1 step over 1 row (1.0 epochs)" in _one(one, "token-budget").message
    assert _one(one, "few-rows").message.startswith("1 row with an answer is fewer")
    assert "1 of 1 row (100.0 %)" in _one(one, "empty-prompts").message


def test_the_last_batch_of_an_epoch_may_be_smaller() -> None:
    rows = [Example("", f"Lima {i}", i) for i in range(1, 61)]
    message = _one(preflight(rows, Recipe(batch_size=8, epochs=3)), "token-budget").message
    assert "24 steps over 60 rows (3.0 epochs)" in message
    accumulated = Recipe(batch_size=8, gradient_accumulation_steps=5, max_steps=3)
    assert "(1.7 epochs)" in _one(preflight(rows, accumulated), "token-budget").message
    length = RunLength(54, 21, heldout_rows=6)
    message = _one(preflight(rows, Recipe(), length=length), "token-budget").message
    assert "21 steps over 54 rows (3.0 epochs, 6 more held out)" in message


def test_of_a_stream_whose_rows_were_not_read_no_tokens_are_counted() -> None:
    message = _one(preflight([], Recipe(batch_size=4), length=RunLength(120, 30)), "token-budget").message
    assert message.endswith("is 30 steps over 120 rows (1.0 epochs)")


def test_earlier_answers_are_trained_under_a_chat_template_alone(tokenizer, chat) -> None:  # type: ignore[no-untyped-def]
    turns = tuple(Message(role, text) for text, role in zip("abcd", ("user", "assistant") * 2, strict=True))
    rows = [*_clean(), Example("a\n\nb\n\nc", "d", 17, turns), Example("a", "b", 18, turns[:2])]
    finding = _one(preflight(rows, Recipe(), tokenizer=tokenizer), "earlier-turns")
    assert (finding.severity, finding.rows) == ("note", (17,))
    assert "template 'raw' trains the last one alone" in finding.message
    assert not _only(preflight(rows, Recipe(), tokenizer=chat), "earlier-turns")
    (encoded,) = encode_examples(rows[16:17], chat, Recipe())
    trained = [token for token, own in zip(encoded.ids, encoded.answer, strict=True) if own]
    assert "b" in chat.decode(trained) and "d" in chat.decode(trained)
    assert _only(preflight(rows, Recipe(template="qa")), "earlier-turns")
    assert not _only(preflight(rows, Recipe()), "earlier-turns")


def _found(**facts: Any) -> tuple[Finding, ...]:
    recipe = facts.pop("recipe", Recipe())
    return run_checks(Context(take_survey(_clean()), recipe, **facts))


def test_a_layer_that_the_base_does_not_have_stops() -> None:
    layers = ("model.layers.0.q_proj", "model.layers.0.up_proj")
    wrong = Recipe(target_modules=("q_proj", "nosuch", "layers.0.up_proj"))
    finding = _one(_found(recipe=wrong, layers=layers), "target-modules")
    assert finding.severity == "stop" and "nosuch, layers.0.up_proj" in finding.message
    assert "among q_proj, up_proj" in finding.remedy
    for right in (("all-linear",), ("q_proj", "model.layers.0.up_proj")):
        assert not _only(_found(recipe=Recipe(target_modules=right), layers=layers), "target-modules")
    assert not _only(_found(recipe=wrong), "target-modules")


def test_columns_that_compete_are_a_note_that_says_how_to_choose() -> None:
    use = ColumnUse(
        (("prompt", "problem"), ("answer", "answer")), ("my solution",), (("answer", "my solution"),)
    )
    finding = _one(_found(columns=use), "column-choice")
    assert finding.severity == "note" and "column 'answer'; the name of 'my solution'" in finding.message
    assert "-m prompt=problem -m answer='my solution'" in finding.remedy
    assert not _only(_found(columns=replace(use, rivals=())), "column-choice")


def test_a_passage_that_is_not_read_may_tell_copies_and_contradictions_apart(tmp_path: Path) -> None:
    told = "The tenant of house number {} pays on the first day of each month."
    rows = [
        {
            "question": "Who pays?",
            "answer": f"tenant {i // 2}",
            "my contract": told.format(i),
            "note": "old file",
        }
        for i in range(4)
    ]
    path = tmp_path / "contracts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = read_examples(path)
    findings = preflight(data, Recipe(), columns=data.use)
    for name in ("exact-duplicates", "conflicting-answers"):
        assert _one(findings, name).remedy.endswith("-m input='my contract'")
    data = read_examples(path, mapping=ColumnMapping(input="my contract"))
    assert not _only(preflight(data, Recipe(), columns=data.use), "conflicting-answers")
    assert not data.use.passages


def test_answers_no_nearer_to_their_own_prompts_warn_where_that_tells_something() -> None:
    static = {
        "prompt_answer_similarity_gap": 0.004,
        "prompt_opening_fraction": 0.2,
        "distinct_answer_fraction": 1.0,
        "answer_length_p50_words": 9.0,
    }

    def found(rows: list[Example], **changes: float) -> list[Finding]:
        context = Context(take_survey(rows), Recipe(), static={**static, **changes})
        return _only(run_checks(context), "mismatched-answers")

    (finding,) = found(_clean(7))
    assert finding.severity == "warn" and "+0.004" in finding.message
    assert not found(_clean(7), prompt_answer_similarity_gap=0.06)
    assert not found(_clean(7), prompt_answer_similarity_gap=np.nan)
    assert not found(_clean(7), answer_length_p50_words=1.0)
    assert not found(_clean(7), distinct_answer_fraction=0.1)
    assert not found(_clean(7), prompt_opening_fraction=0.9)
    assert not found(_clean(5))
    assert not found([replace(row, prompt="Write a poem.") for row in _clean(7)])
    assert not found([replace(row, prompt=row.prompt + " text" * 500) for row in _clean(7)])
    arabic = "ما هي عاصمة هذا البلد البعيد"
    assert not found([replace(row, prompt=f"{arabic} {row.row}", answer=arabic) for row in _clean(7)])


def _trace(loss: np.ndarray, **changes: object) -> ProbeTrace:
    steps = len(loss)
    ones = np.ones(steps, np.float32)
    unit = (
        "grad_norm",
        "dot_previous",
        "dot_mean",
        "mean_norm",
        "small_gradients",
        "seconds",
        "peak_memory_mb",
    )
    fields: dict[str, np.ndarray] = dict.fromkeys(unit, ones)
    fields["loss_sum_nats"] = loss.astype(np.float32) * 10
    fields["answer_tokens"] = ones * 10
    fields["learning_rate"] = ones * 1e-3
    fields["update_norm"] = ones * 0.1
    fields["distance"] = np.arange(1, steps + 1, dtype=np.float32) * 0.1
    fields["layer_grad_norm"] = np.ones((steps, 2), np.float32)
    info = TraceInfo(
        "b", "f", "d", Recipe(), 1000, 90, 10, 500, ("q", "v"), failure=str(changes.pop("failure", ""))
    )
    cues = changes.pop("cues", ())
    none = np.empty(0, np.int32)
    visits = RowVisits(none, none, np.empty(0, np.float32), none)
    return ProbeTrace(info, StepColumns(**{**fields, **changes}), visits, cues)  # type: ignore[arg-type]


def _falling(steps: int = 100) -> np.ndarray:
    rng = np.random.default_rng(0)
    return 3.0 * np.exp(-np.arange(steps) / 40) + 0.5 + rng.normal(0, 0.1, steps)


def _names(trace: ProbeTrace) -> list[tuple[str, str]]:
    return [(finding.check, finding.severity) for finding in probe_findings(trace)]


def test_a_healthy_probe_gives_no_findings() -> None:
    assert _names(_trace(_falling())) == []


def test_values_that_are_not_finite_stop_with_their_step() -> None:
    loss = _falling()
    loss[41] = np.nan
    (finding, *_) = probe_findings(_trace(loss))
    assert (finding.check, finding.severity) == ("not-finite", "stop") and "nan at step 42" in finding.message
    assert "(1 step in all)" in finding.message
    norm = np.ones(100, np.float32)
    norm[9] = np.inf
    (finding,) = probe_findings(_trace(_falling(), grad_norm=norm))
    assert "gradient norm is inf at step 10" in finding.message
    assert ("not-finite", "stop") in _names(_trace(_falling(), failure="loss not finite at step 12"))
    assert ("not-finite", "stop") in _names(_trace(_falling(), answer_tokens=np.zeros(100, np.float32)))


def test_a_base_without_numbers_is_not_blamed_on_the_learning_rate() -> None:
    (finding,) = probe_findings(_trace(np.full(100, np.nan, np.float32)))
    assert "step 1 of" in finding.message and "the base itself gives no numbers" in finding.message
    assert "weights" in finding.remedy and "learning rate" not in finding.remedy


def test_a_gradient_norm_that_was_not_measured_is_no_failure() -> None:
    assert _names(_trace(_falling(), grad_norm=np.full(100, np.nan, np.float32))) == []


def test_steps_that_a_gradient_scaler_skipped_are_no_failure() -> None:
    norm = np.ones(100, np.float32)
    norm[:7] = np.nan
    trace = _trace(_falling(), grad_norm=norm)
    assert _names(trace) == [("not-finite", "stop")]
    assert _names(replace(trace, absent=(("gradients", "the gradient scaler skipped 7 steps"),))) == []


def test_a_spike_counts_only_without_recovery() -> None:
    rising, recovered = _falling(), _falling()
    rising[70:] += 2.0
    recovered[50:60] += 2.0
    assert ("loss-spike", "warn") in _names(_trace(rising))
    assert _names(_trace(recovered)) == []


def test_what_steps_of_few_rows_scatter_by_is_no_spike() -> None:
    scatter = np.tile([1.0, -1.0, 1.0, -1.0], 25)
    scatter[80:90], scatter[90:] = -0.5, 0.5
    noisy = _falling() + scatter
    smooth = np.convolve(noisy, np.full(10, 0.1), "valid")
    # A nat above the lowest mean, where steps differ by two: the standard error is sqrt(4 / 10).
    assert smooth[-1] - smooth.min() > 0.9
    assert "loss-spike" not in dict(_names(_trace(noisy)))
    noisy[90:] += 1.5
    assert ("loss-spike", "warn") in _names(_trace(noisy))


def _cue(step: int, loss: float, margin: float) -> Cue:
    margins = np.full(4, margin, np.float32)
    return Cue(step, loss, loss, np.full(4, 0.5, np.float32), margins)


def test_an_adapter_without_effect_stops() -> None:
    assert ("no-effect", "stop") in _names(_trace(_falling(), distance=np.zeros(100, np.float32)))
    same = (_cue(0, 2.0, 0.3), _cue(100, 2.0, 0.3))
    assert ("no-effect", "stop") in _names(_trace(_falling(), cues=same))
    moved = (_cue(0, 2.0, 0.3), _cue(100, 2.0, 0.4))
    assert _names(_trace(_falling(), cues=moved)) == []


def test_a_learning_rate_that_stays_0_is_told_as_that() -> None:
    still = {"distance": np.zeros(100, np.float32), "learning_rate": np.zeros(100, np.float32)}
    (finding,) = probe_findings(_trace(_falling(), **still))
    assert (finding.check, finding.severity) == ("no-effect", "stop")
    assert "the learning rate is 0 in each of 100 steps" in finding.message and "warm-up" in finding.remedy


def test_an_adapter_without_a_gradient_stops_though_weight_decay_moves_it() -> None:
    trace = _trace(_falling(), grad_norm=np.zeros(100, np.float32))
    (finding,) = probe_findings(trace)
    assert (finding.check, finding.severity) == ("no-effect", "stop") and "is 0 in each of" in finding.message
    norm = np.zeros(100, np.float32)
    norm[3] = 0.1
    assert _names(replace(trace, steps=replace(trace.steps, grad_norm=norm))) == []


def test_free_answers_that_stay_the_same_do_not_show_that_nothing_is_trained() -> None:
    blind = (replace(_cue(step, np.nan, -1.0), reference_loss_nats=1.2) for step in (0, 100))
    trace = _trace(_falling(), cues=tuple(blind))
    (finding,) = probe_findings(trace)
    assert finding.message.startswith("steps 0 and 100 have the same benchmark cues:")
    for metric in ("exact_match", "f1", "rouge_l", "harness"):
        assert _names(replace(trace, info=replace(trace.info, metric=metric))) == []  # type: ignore[arg-type]
    same = replace(trace, cues=(_cue(0, 2.0, -1.0), _cue(100, 2.0, -1.0)))
    assert ("no-effect", "stop") in _names(replace(same, info=replace(same.info, metric="f1")))


def test_a_loss_that_does_not_fall_warns() -> None:
    flat = 2.0 + np.random.default_rng(1).normal(0, 0.1, 100)
    assert _names(_trace(flat)) == [("flat-loss", "warn")]
    worse = (_cue(0, 2.0, 0.3), _cue(100, 2.1, 0.2))
    assert _names(_trace(flat, cues=worse)) == [("flat-loss", "warn")]


def test_a_loss_that_rises_asks_for_a_lower_rate() -> None:
    # A rate far too high is what breaks a base; raising it would make it worse.
    noise = np.random.default_rng(1).normal(0, 0.1, 100)
    still = (_cue(0, 2.0, 0.3), _cue(100, 2.0, 0.4))
    broken = (_cue(0, 2.0, 0.3), _cue(100, 3.0, 0.2))
    high = 2.5 + noise
    (finding,) = probe_findings(_trace(high, cues=broken))
    assert finding.check == "flat-loss" and finding.remedy.startswith("lower the learning rate")
    assert finding.message.endswith("; that on held-out rows ends at 1.50 times the base's")
    (finding,) = probe_findings(_trace(high, cues=still))
    assert finding.remedy.startswith("raise the learning rate if it is low")
    rising = 2.0 + noise + np.linspace(0.0, 0.4, 100)
    (finding,) = probe_findings(_trace(rising))
    assert "the loss rises over the probe" in finding.message
    assert finding.remedy.startswith("lower the learning rate")


def test_a_spike_that_stays_is_told_once() -> None:
    rising = _falling()
    rising[70:] += 3.0
    broken = (_cue(0, 2.0, 0.3), _cue(100, 4.0, 0.2))
    assert _names(_trace(rising, cues=broken)) == [("loss-spike", "warn")]


def test_a_noisy_loss_is_no_finding_when_held_out_rows_or_the_benchmark_improve() -> None:
    flat = 2.0 + np.random.default_rng(1).normal(0, 0.1, 100)
    learnt = (_cue(0, 2.0, 0.3), _cue(100, 1.8, 0.3))
    gained = (_cue(0, 2.0, -0.3), _cue(100, 2.0, 0.3))
    assert _names(_trace(flat, cues=learnt)) == _names(_trace(flat, cues=gained)) == []


def test_every_check_has_its_section_in_the_docs_and_no_section_is_left_over() -> None:
    sections = [line[3:].strip() for line in DOCS.read_text().splitlines() if line.startswith("## ")]
    names = [check.name for check in CHECKS] + [name for name, _ in PROBE_CHECKS]
    assert len(set(names)) == len(names)
    assert sorted(sections) == sorted(names)


def test_every_check_of_the_registry_fires_under_its_own_name(tokenizer) -> None:  # type: ignore[no-untyped-def]
    source = Path(__file__).read_text()
    for check in CHECKS:
        assert f'"{check.name}"' in source


def _stream(rows: list[Example], read: list[int]) -> Iterator[Example]:
    for row in rows:
        read.append(row.row)
        yield row


def test_rows_are_read_once(tokenizer) -> None:  # type: ignore[no-untyped-def]
    read: list[int] = []
    preflight(_stream(_clean(3), read), Recipe(), tokenizer=tokenizer, benchmarks=[_benchmark(10)])
    assert read == list(range(1, 49))
