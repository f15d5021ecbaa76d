"""Tokens and masks: only what the model should say is trained."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pytest
from training_fixtures import make_examples

from tuneahead.benchmark.items import Asking, Benchmark, ChoiceItem, GenerationItem
from tuneahead.errors import ModelError
from tuneahead.examples import Example, Message
from tuneahead.recipe import Recipe
from tuneahead.training import encode
from tuneahead.training.batches import pack, step_rows
from tuneahead.training.encode import Encoded, data_fingerprint, encode_examples, split_data, start_ids
from tuneahead.training.models import Base
from tuneahead.training.probe import prepare_data
from tuneahead.training.scoring import encode_benchmark, reference_rows

RAW = Recipe(template="raw", max_length=12)
CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
# As those of reasoning models: refused before a user speaks; a thought ("cat") before the last answer alone.
THINKING = (
    "{% if not messages | selectattr('role', 'equalto', 'user') | list %}"
    "{{ raise_exception('no user query') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}> {% if m.role == 'assistant' and loop.last %}cat {% endif %}"
    "{{ m.content }} <eos>{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)


def text_of(base: Base, ids: Sequence[int]) -> str:
    """The text without white space, which a word tokenizer does not give back faithfully."""
    return re.sub(r"[\s\u2581]|<unk>", "", base.tokenizer.decode(ids))


def trained_text(base: Base, row: Encoded) -> str:
    return text_of(base, [t for t, on in zip(row.ids, row.answer, strict=True) if on])


def test_the_answer_and_the_end_are_trained_and_the_prompt_is_not(tiny: Base) -> None:
    (row,) = encode_examples([Example("red blue", "one two", 1)], tiny.tokenizer, RAW)
    assert text_of(tiny, row.ids) == "redblueonetwo<eos>"
    assert row.answer == (False, False, True, True, True)
    assert row.answer_tokens == 3


def test_prompt_and_answer_meet_at_one_space(tiny: Base) -> None:
    rows = encode_examples(
        [Example("red", "one", 1), Example("red ", "one", 2), Example("", "one two", 3)], tiny.tokenizer, RAW
    )
    assert rows[0].ids == tuple(tiny.tokenizer("red one")["input_ids"]) + (1,)
    assert text_of(tiny, rows[1].ids) == "redone<eos>" and text_of(tiny, rows[2].ids) == "onetwo<eos>"
    assert rows[2].answer_tokens == 2, "nothing predicts the first token of a row"


def test_rows_are_cut_from_the_right_and_may_lose_their_answer(tiny: Base) -> None:
    examples = [Example(" ".join(["red"] * 20), "one", 1), Example(" ".join(["red"] * 11), "one two", 2)]
    lost, cut = encode_examples(examples, tiny.tokenizer, RAW)
    assert len(lost.ids) == len(cut.ids) == 12
    assert lost.answer_tokens == 0 and cut.answer_tokens == 1


def test_rows_of_a_large_data_set_are_encoded_in_blocks_and_share_their_tokens(
    tiny: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode_examples(make_examples(10), tiny.tokenizer, RAW)
    monkeypatch.setattr(encode, "_ROWS_AT_ONCE", 3)
    assert encode_examples(make_examples(10), tiny.tokenizer, RAW) == whole
    one, other = (Encoded((int("70000"), int("80000")), (False, True), row) for row in (1, 2))
    assert all(a is b for a, b in zip(one.ids, other.ids, strict=True))


def test_an_empty_answer_trains_nothing(tiny: Base) -> None:
    (row,) = encode_examples([Example("red", "", 1)], tiny.tokenizer, RAW)
    assert row.answer_tokens == 0


def test_chat_templates_train_every_assistant_turn(tiny: Base) -> None:
    tiny.tokenizer.chat_template = CHAT
    turns = (
        Message("user", "red"),
        Message("assistant", "one"),
        Message("user", "blue"),
        Message("assistant", "two"),
    )
    plain, conversation = encode_examples(
        [Example("red", "one", 1), Example("red", "two", 2, turns)], tiny.tokenizer, Recipe()
    )
    assert trained_text(tiny, plain) == "one"
    assert trained_text(tiny, conversation) == "onetwo"
    assert text_of(tiny, conversation.ids) == "redonebluetwo"


def test_assistant_turns_of_a_prompt_are_not_trained(tiny: Base) -> None:
    tiny.tokenizer.chat_template = CHAT
    turns = (
        Message("user", "red"),
        Message("assistant", "one", asked=True),
        Message("user", "blue"),
        Message("assistant", "two"),
    )
    answered, unanswered = encode_examples(
        [Example("red", "two", 1, turns), Example("red", "", 2, turns[:3])], tiny.tokenizer, Recipe()
    )
    assert trained_text(tiny, answered) == "two"
    assert text_of(tiny, answered.ids) == "redonebluetwo"
    assert trained_text(tiny, unanswered) == ""


def turns_of(*contents: str) -> tuple[Message, ...]:
    roles = ("user", "assistant") * len(contents)
    return tuple(Message(role, text) for role, text in zip(roles, contents, strict=False))


def test_a_template_that_refuses_a_lone_system_turn_takes_a_conversation_that_opens_with_one(
    tiny: Base,
) -> None:
    tiny.tokenizer.chat_template = THINKING
    turns = (Message("system", "blue"), *turns_of("red", "one"))
    (row,) = encode_examples([Example("red", "one", 1, turns)], tiny.tokenizer, Recipe())
    assert text_of(tiny, row.ids) == "blue<eos>red<eos>catone<eos>"
    assert trained_text(tiny, row) == "catone<eos>"


def test_a_template_that_shows_only_the_last_thought_trains_every_assistant_turn(tiny: Base) -> None:
    tiny.tokenizer.chat_template = THINKING
    tool = (*turns_of("red", "one"), Message("tool", "blue"), Message("assistant", "two"))
    for turns in (turns_of("red", "one", "blue", "two"), tool):
        (row,) = encode_examples([Example("red", "two", 1, turns)], tiny.tokenizer, Recipe())
        assert text_of(tiny, row.ids) == "red<eos>one<eos>blue<eos>cattwo<eos>"
        assert trained_text(tiny, row) == "one<eos>cattwo<eos>"
    opened = (Message("assistant", "one"), *turns_of("red", "two"))
    (row,) = encode_examples([Example("red", "two", 1, opened)], tiny.tokenizer, Recipe())
    assert trained_text(tiny, row) == "one<eos>cattwo<eos>"


def test_what_closes_a_turn_is_told_in_whole_tokens_where_the_last_one_ends_otherwise(tiny: Base) -> None:
    # As Phi-3's: "<|" is how both <|user|> and <|endoftext|> begin.
    tiny.tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{{ '<|assistant|>' if add_generation_prompt else '<|endoftext|>' }}"
    )
    marks = ["<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]
    tiny.tokenizer.add_special_tokens({"additional_special_tokens": marks})
    turns = turns_of("red", "one", "blue", "two")
    (row,) = encode_examples([Example("red", "two", 1, turns)], tiny.tokenizer, Recipe())
    tokens = tiny.tokenizer.convert_ids_to_tokens(row.ids)
    assert " ".join(tokens) == (
        "<|user|> red <|end|> <|assistant|> one <|end|> <|user|> blue <|end|> <|assistant|> two <|end|> "
        "<|endoftext|>"
    )
    trained = [token for token, on in zip(tokens, row.answer, strict=True) if on]
    assert trained == ["one", "<|end|>", "two", "<|end|>", "<|endoftext|>"]


@pytest.mark.parametrize("template", [CHAT, THINKING])
def test_turns_beyond_the_window_cost_no_time_and_change_nothing(tiny: Base, template: str) -> None:
    tiny.tokenizer.chat_template = template
    example = Example("red", "two", 1, turns_of(*["red", "one", "blue", "two"] * 50))
    rows, seconds = [], []
    for max_length in (12, 100_000):
        began = time.perf_counter()
        rows += encode_examples([example], tiny.tokenizer, Recipe(max_length=max_length))
        seconds.append(time.perf_counter() - began)
    assert rows[0].ids == rows[1].ids[:12] and rows[0].answer == rows[1].answer[:12]
    assert seconds[0] < seconds[1] / 3


@pytest.mark.parametrize("content", ["one two", "<end>", "assistant", " one"])
def test_of_a_turn_without_a_question_the_content_is_trained_and_not_its_heading(
    tiny: Base, content: str
) -> None:
    tiny.tokenizer.chat_template = (
        "{% for m in messages %}: cat {{ m.role }} ? {{ m.content }} <eos>{% endfor %}"
    )
    (row,) = encode_examples([Example("", content, 1)], tiny.tokenizer, Recipe())
    heading = tiny.tokenizer(": cat assistant ? ", add_special_tokens=False)["input_ids"]
    assert row.ids[: len(heading)] == tuple(heading)
    assert row.answer == (False,) * len(heading) + (True,) * (len(row.ids) - len(heading))


def test_a_chat_recipe_without_a_chat_template_is_refused(tiny: Base) -> None:
    tiny.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        encode_examples([Example("red", "one", 1)], tiny.tokenizer, Recipe(template="chat"))


def test_a_tenth_is_held_out_and_always_the_same_rows(tiny: Base) -> None:
    examples = make_examples(50)
    encoded = encode_examples(examples, tiny.tokenizer, RAW)
    print_ = data_fingerprint(examples)
    first, second = split_data(encoded, print_), split_data(encoded, print_)
    assert len(first.heldout) == 5 and len(first.train) == 45
    assert first.heldout == second.heldout
    assert not {id(row) for row in first.heldout} & {id(row) for row in first.train}
    assert len(split_data(encoded[:9], print_).heldout) == 0
    assert data_fingerprint(examples[::-1]) != print_


def test_each_epoch_visits_every_row_once() -> None:
    recipe = Recipe(batch_size=4, gradient_accumulation_steps=2)
    for epoch in range(2):
        seen = [int(i) for s in range(3) for part in step_rows(recipe, 21, epoch * 3 + s) for i in part]
        assert sorted(seen) == list(range(21))
    assert [len(part) for part in step_rows(recipe, 21, 2)] == [4, 1]
    first = [int(i) for part in step_rows(recipe, 21, 0) for i in part]
    assert first != [int(i) for part in step_rows(recipe, 21, 3) for i in part]


def test_short_rows_share_lines_without_losing_a_token() -> None:
    rows = [Encoded(tuple(range(1, n + 2)), (False,) + (True,) * n, 1) for n in (3, 9, 4, 2, 7)]
    coarse = pack([rows, rows[:2]], 0, "cpu", several_per_line=True)
    packed = pack([rows, rows[:2]], 0, "cpu", several_per_line=True, large_base=True)
    assert packed.ids.numel() < coarse.ids.numel(), "a large base's lines are fitted more closely"
    assert packed.visible is not None and packed.places is not None
    assert packed.starts == (0, 5, 7)
    assert len(packed.positions) == sum(row.answer_tokens for row in (*rows, *rows[:2]))
    flat = packed.ids.flatten()
    for position, label in zip(packed.positions.tolist(), packed.labels.tolist(), strict=True):
        assert flat[position] == label - 1
    assert packed.ids.numel() < 2 * 5 * 9, "sharing must need fewer places than a line for each row"


def test_turns_that_the_template_refuses_are_an_error_with_a_remedy(tiny: Base) -> None:
    tiny.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match="refuses row 1: roles must alternate"):
        encode_examples([Example("red", "one", 1)], tiny.tokenizer, Recipe())


@pytest.mark.parametrize("template", ["raw", "kept", "trimmed"])
def test_an_option_with_a_leading_space_is_tokenised_as_training_does(tiny: Base, template: str) -> None:
    if template != "raw":
        content = "m.content | trim" if template == "trimmed" else "m.content"
        tiny.tokenizer.chat_template = CHAT.replace("m.content", content)
    recipe = Recipe(template="raw" if template == "raw" else "chat")
    items = [ChoiceItem("1", "red", (" one", "two"), (0,))]
    (tree,) = encode_benchmark(tiny, Benchmark("b", "accuracy", items), recipe.template).trees
    for branch, option in zip(tree.branches, items[0].options, strict=True):
        (row,) = encode_examples([Example("red", option, 1)], tiny.tokenizer, recipe)
        trained = [token for token, on in zip(row.ids, row.answer, strict=True) if on]
        assert trained[: len(branch)] == list(branch)


@pytest.mark.parametrize("lead", [" sun moon ", " sun<pad>"])
def test_what_a_chat_template_says_before_an_answer_is_part_of_a_benchmarks_prompt(
    tiny: Base, lead: str
) -> None:
    tiny.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }} cat"
        "{% else %} dog" + lead + "{{ m.content }} bird{% endif %}{% endfor %}"
        "{% if add_generation_prompt %} dog{% endif %}"
    )
    items = [ChoiceItem("1", "red", ("one", "two three"), (0,))]
    (tree,) = encode_benchmark(tiny, Benchmark("b", "accuracy", items), "chat").trees
    assert text_of(tiny, tree.prompt) == "redcatdog" + lead.replace(" ", "")
    for branch, option in zip(tree.branches, items[0].options, strict=True):
        (row,) = encode_examples([Example("red", option, 1)], tiny.tokenizer, Recipe(template="chat"))
        assert tree.prompt + branch == row.ids[:-1]
    free = Benchmark("b", "f1", [GenerationItem("1", "red", ("one",))], Asking(max_new_tokens=4))
    assert encode_benchmark(tiny, free, "chat").trees[0].prompt == tree.prompt


def test_a_thought_that_the_template_opens_for_generation_alone_is_no_part_of_a_benchmarks_prompt(
    tiny: Base,
) -> None:
    tiny.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %} cat{% else %} bird{% endif %}"
        "{% endfor %}{% if add_generation_prompt %} sun{% endif %}"
    )
    items = [ChoiceItem("1", "red", (" one", " two three"), (0,))]
    (tree,) = encode_benchmark(tiny, Benchmark("b", "accuracy", items), "chat").trees
    assert text_of(tiny, tree.prompt) == "redcat"
    assert [text_of(tiny, branch) for branch in tree.branches] == ["one", "twothree"]


def test_special_tokens_before_a_text_are_those_the_tokenizer_puts_there(tiny: Base) -> None:
    from tokenizers.processors import TemplateProcessing

    assert start_ids(tiny.tokenizer) == []
    backend = tiny.tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    assert start_ids(tiny.tokenizer) == [0]
    (row,) = encode_examples([Example("red", "one", 1)], tiny.tokenizer, RAW)
    assert row.ids[0] == 0 and not row.answer[0]
    item = ChoiceItem("1", "red", ("one", "two"), (0,))
    tree = encode_benchmark(tiny, Benchmark("b", "accuracy", [item])).trees[0]
    assert tree.prompt == row.ids[:2]
    reference = reference_rows(tiny, ["red one"])[0]
    assert reference.ids[0] == 0 and reference.answer == (False, True, True)


def test_held_out_rows_are_the_same_whatever_is_cut_off(tiny: Base) -> None:
    examples = [Example(" ".join(["red"] * (1 + i % 8)), "one", i + 1) for i in range(60)]
    held = [
        {row.row for row in prepare_data(tiny, examples, RAW.replace(max_length=n)).heldout} for n in (64, 5)
    ]
    assert held[1] < held[0]


def test_rows_are_cut_to_the_window_of_the_base(tiny: Base) -> None:
    examples = [Example(" ".join(["red"] * 200), "one", i + 1) for i in range(3)]
    assert prepare_data(tiny, examples, RAW.replace(max_length=512)).train == []
