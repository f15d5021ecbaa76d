"""Rows of tokens as text: what a chat template puts around prompts is none of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from training.training_fixtures import make_examples
from transformers import PreTrainedTokenizerBase

from tuneahead.examples import Example, Message
from tuneahead.features.answertokens import sample_answers
from tuneahead.features.extract import measure_examples, static_features
from tuneahead.integrations.decoding import chat_marks, decode_rows
from tuneahead.recipe import Recipe
from tuneahead.training.encode import Encoded, chat_text, encode_examples
from tuneahead.training.models import Base, load_base, load_tokenizer

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\none two<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As SmolLM2 and Qwen have it, with a system turn of their own."""
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Gemma has it."""
THINKING = CHATML.replace(
    "<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant <|think|> three {% endif %}"
)
"""What opens a new answer stands before no answer that is given."""
WINDOW = Recipe(max_length=4096)
RAW = WINDOW.replace(template="raw")
SINGLE = Example("red cat", "sun", 1)


def talk(*contents: str, system: str = "") -> Example:
    """A conversation of these turns, the user's first, and the system's before it."""
    roles = ("user", "assistant") * len(contents)
    turns = [Message(role, text) for role, text in zip(roles, contents, strict=False)]
    turns = [Message("system", system)] * bool(system) + turns
    prompt = "\n\n".join(turn.content for turn in turns[:-1])
    return Example(prompt, contents[-1], 1, tuple(turns))


def speaking(template: str) -> PreTrainedTokenizerBase:
    """The lab's tokenizer, which gives texts back to the letter, with a chat template."""
    tokenizer = load_base("lab", device="cpu").tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|think|>"]})
    tokenizer.chat_template = template
    return tokenizer


def decoded(rows: Sequence[Encoded], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    return [one.example for one in decode_rows(rows, tokenizer)]


def texts(examples: Sequence[Example]) -> list[tuple[str, str]]:
    return [(example.prompt, example.answer) for example in examples]


@pytest.mark.parametrize("template", [CHATML, STRICT, THINKING])
@pytest.mark.parametrize("example", [SINGLE, talk("red cat", "moon", "one two", "sun")])
def test_what_a_template_puts_around_a_prompt_is_left_out(
    path: Path, template: str, example: Example
) -> None:
    tokenizer = speaking(template)
    rows = encode_examples([example], tokenizer, WINDOW)
    assert any(tokenizer.decode([i]) == "<|im_start|>" for i in rows[0].ids)
    assert texts(decoded(rows, tokenizer)) == texts([example])


def test_a_system_turn_of_the_data_is_kept_and_the_templates_own_is_not() -> None:
    tokenizer = speaking(CHATML)
    given = [SINGLE, talk("red cat", "sun", system="five four")]
    found = decoded(encode_examples(given, tokenizer, WINDOW), tokenizer)
    assert texts(found) == [("red cat", "sun"), ("five four\n\nred cat", "sun")]


def test_of_several_turns_the_last_that_says_something_is_the_answer() -> None:
    tokenizer = speaking(CHATML)
    (row,) = encode_examples([talk("red", "moon", "cat", "sun")], tokenizer, WINDOW)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    # As a collator masks ends that are padding too: the line break after the last is trained alone.
    unended = replace(row, answer=tuple(on and i != end for i, on in zip(row.ids, row.answer, strict=True)))
    assert unended.answer[-1] and not unended.answer[-2]
    assert texts(decoded([unended], tokenizer)) == [("red\n\nmoon\n\ncat", "sun")]


@pytest.mark.parametrize("example", [SINGLE, talk("red", "moon", "cat", "sun", system="five four")])
@pytest.mark.parametrize("unlabelled", [0, 1])
def test_a_conversation_that_is_trained_whole_is_read_as_prompt_and_answer(
    example: Example, unlabelled: int
) -> None:
    tokenizer = speaking(CHATML)
    turns = example.messages or (Message("user", example.prompt), Message("assistant", example.answer))
    text = chat_text(tokenizer, [vars(turn) for turn in turns], generation=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    # The first token of a row has no label in some batches.
    trained = (False,) * unlabelled + (True,) * (len(ids) - unlabelled)
    (found,) = decode_rows([Encoded(tuple(ids), trained, 1)], tokenizer)
    assert texts([found.example]) == texts([example])
    last = [i for i, on in zip(found.encoded.ids, found.encoded.answer, strict=True) if on]
    assert tokenizer.decode(last) == "sun<|im_end|>\n"


def test_a_conversation_that_was_cut_before_its_answer_stays_as_it_is_trained() -> None:
    tokenizer = speaking(CHATML)
    (row,) = encode_examples([SINGLE], tokenizer, WINDOW)
    cut = row.ids[: row.ids.index(tokenizer.convert_tokens_to_ids("<|im_end|>"), 12)]
    (found,) = decode_rows([Encoded(cut, (True,) * len(cut), 1)], tokenizer)
    assert found.example.prompt == "" and found.example.answer.endswith("red cat")
    assert all(found.encoded.answer)


@pytest.mark.parametrize(
    "template",
    ["", "{{ messages[0].content }}", "{{ raise_exception('never') }}", "{{ 1 + messages[0].content }}"],
)
def test_a_template_that_marks_nothing_has_no_marks(template: str) -> None:
    tokenizer = speaking(template)
    assert chat_marks(tokenizer) is None
    rows = encode_examples([SINGLE], tokenizer, RAW)
    assert texts(decoded(rows, tokenizer)) == texts([SINGLE])


def test_rows_that_the_template_did_not_make_are_read_as_they_are() -> None:
    tokenizer = speaking(CHATML)
    rows = encode_examples([SINGLE], tokenizer, RAW)
    assert texts(decoded(rows, tokenizer)) == texts([SINGLE])
    # A turn that the template would have opened otherwise, and closed before the answer.
    before = tokenizer("<|im_start|>user red<|im_end|> cat", add_special_tokens=False)["input_ids"]
    after = tokenizer(" sun", add_special_tokens=False)["input_ids"]
    row = Encoded((*before, *after), (False,) * len(before) + (True,) * len(after), 1)
    assert decoded([row], tokenizer)[0].prompt.split() == ["user", "red", "cat"]


def test_features_of_a_trainers_rows_are_those_of_the_file() -> None:
    base = replace(load_base("lab", device="cpu"), tokenizer=speaking(CHATML))
    base.model.resize_token_embeddings(len(base.tokenizer))
    examples = make_examples(30)
    rows = encode_examples(examples, base.tokenizer, WINDOW)
    own = static_features(examples, base=base)
    read = measure_examples(examples, base=base, encoded={row.row: row for row in rows}).features
    assert own.values == pytest.approx(read.values, nan_ok=True) and "reference_loss_nats" in own.values
    # Trained without the template the base reads them without it.
    bare = encode_examples(examples, base.tokenizer, RAW)
    other = measure_examples(examples, base=base, encoded={row.row: row for row in bare}).features
    assert other["reference_loss_nats"] != pytest.approx(own["reference_loss_nats"], rel=1e-3)


def test_given_rows_that_fill_the_window_keep_their_answers(base: Base) -> None:
    texts = [Example(f"one {'two ' * 200}cat", "dog bird", 1), Example("one two", "", 2), SINGLE]
    examples = [replace(example, row=i) for i, example in enumerate(texts, 1)]
    rows = {row.row: row for row in encode_examples(examples, base.tokenizer, WINDOW)}
    # A Trainer trains the end of an empty answer.
    rows[2] = Encoded((*rows[2].ids, base.tokenizer.eos_token_id), (*rows[2].answer, True), 2)
    found = sample_answers(examples, base, rows)
    assert found == sample_answers([examples[0], examples[2]], base)
    assert len(found[0].before) + len(found[0].answer) == base.context_tokens


def test_answers_of_special_tokens_are_read_and_the_end_of_an_empty_turn_is_none(path: Path) -> None:
    tokenizer = load_tokenizer(str(path))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|safe|>", "<|unsafe|>"]})
    end, safe, unsafe = tokenizer.convert_tokens_to_ids(["<|end|>", "<|safe|>", "<|unsafe|>"])
    (word,) = tokenizer.encode("red", add_special_tokens=False)

    def answers(*trained: list[int]) -> list[str]:
        rows = [Encoded((word, *ids), (False, *[True] * len(ids)), i) for i, ids in enumerate(trained, 1)]
        return [row.answer for row in decoded(rows, tokenizer)]

    last = tokenizer.eos_token_id
    assert answers([safe, last], [unsafe, last]) == ["<|safe|>", "<|unsafe|>"]
    assert answers([word, safe], [word, unsafe]) == ["red <|safe|>", "red <|unsafe|>"]
    assert answers([end, last], [end], [last], []) == [""] * 4
    assert answers([word, end], [end]) == ["red", ""]
