"""Token measures of the rows: what fits the window, what is trained, how rows end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tuneahead.errors import ModelError
from tuneahead.examples import Example, Message, shortened
from tuneahead.recipe import Recipe
from tuneahead.survey import Survey, Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tuneahead.training.encode import Encoded

_BATCH_ROWS = 1_000
_UNCUT_TOKENS = 1 << 20
# No tokenizer in use has tokens of more characters on average over a text: a text cut to
# this many per token of the window still overfills it.
_CHARACTERS_PER_TOKEN = 64
_END_TOKENS = 3


@dataclass(frozen=True)
class TokenMeasures:
    """What tokenising showed.

    ``masked`` and ``cut`` are row numbers among ``examined`` long rows that have an answer, of
    ``long_rows`` in all. ``mean_tokens`` is the mean length within the window over the sample,
    ``ended_fraction`` the share of its rows whose trained tokens close with a special token
    (NaN if no row fits). ``split_markers`` are families of template markers that are no single
    tokens of this tokenizer. ``too_long`` are rows that, within the window, hold more than the
    ``context_tokens`` that the base reads (0 where its tokenizer names no limit).
    ``failure`` says why nothing could be measured.
    """

    template: str
    masked: NDArray[np.int64]
    cut: NDArray[np.int64]
    examined: int
    long_rows: int
    mean_tokens: float
    ended_fraction: float
    end_token: str
    pad_is_end: bool
    too_long: NDArray[np.int64]
    context_tokens: int
    has_chat_template: bool
    split_markers: frozenset[str] = frozenset()
    failure: str = ""
    remedy: str = ""


MARKER_TOKENS = {
    "ChatML": "<|im_start|>",
    "Llama 3": "<|start_header_id|>",
    "Gemma": "<start_of_turn>",
    "Zephyr": "<|user|>",
    "Llama 4": "<|header_start|>",
    "DeepSeek": "<\uff5cUser\uff5c>",
    "gpt-oss": "<|message|>",
    "Command R": "<|START_OF_TURN_TOKEN|>",
    **{token: token for token in ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")},
}


def find_window(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Window:
    """What the template adds to a row, measured on tiny rows; raises :class:`ModelError`."""
    turns = tuple(Message("user" if i % 2 == 0 else "assistant", "a") for i in range(6))
    rows = [Example("a", "b", 1), *(Example("a", "a", 1, turns[:n]) for n in (2, 6))]
    short, few, many = (len(row.ids) for row in _encode(rows, tokenizer, recipe, _UNCUT_TOKENS))
    fits = min(recipe.max_length, _context_tokens(tokenizer) or recipe.max_length)
    read = _CHARACTERS_PER_TOKEN * recipe.max_length
    return Window(fits, short + 2, max(0, many - few) // 4 + 2, read)


def _context_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    # Without a limit transformers says 10**30.
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit is not None and limit < 10**9 else 0


def measure_tokens(survey: Survey, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> TokenMeasures:
    """Tokenise the long rows and the sample of a survey, and sum up what matters.

    A base whose template can't be applied gives measures with a ``failure`` instead of an error.
    """
    from tuneahead.training.encode import resolve_template

    try:
        template = resolve_template(recipe.template, tokenizer)
        masked, cut, too_long = _window_rows(survey.long_rows, tokenizer, recipe)
        mean_tokens, ended = _sample_measures(survey.sample, tokenizer, recipe)
    except ModelError as error:
        none = np.empty(0, np.int64)
        empty = TokenMeasures("", none, none, 0, 0, np.nan, np.nan, "", False, none, 0, False)
        return replace(empty, failure=error.message, remedy=error.remedy)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    return TokenMeasures(
        template=template,
        masked=masked,
        cut=cut,
        examined=sum(bool(row.answer.strip()) for row in survey.long_rows),
        long_rows=survey.long_count,
        mean_tokens=mean_tokens,
        ended_fraction=ended,
        end_token=str(tokenizer.eos_token) if end is not None else "",
        pad_is_end=end is not None and end == pad,
        too_long=too_long,
        context_tokens=_context_tokens(tokenizer),
        has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
        split_markers=frozenset(
            family
            for family, token in MARKER_TOKENS.items()
            if len(tokenizer(token, add_special_tokens=False)["input_ids"]) != 1
        ),
    )


def _window_rows(
    rows: Sequence[Example], tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    masked: list[int] = []
    cut: list[int] = []
    too_long: list[int] = []
    context = _context_tokens(tokenizer) or _UNCUT_TOKENS
    answered = [row for row in rows if row.answer.strip()]
    for at in range(0, len(answered), _BATCH_ROWS):
        batch = [trimmed(row, recipe.max_length) for row in answered[at : at + _BATCH_ROWS]]
        for example in _encode(batch, tokenizer, recipe, recipe.max_length + 1):
            if min(len(example.ids), recipe.max_length) > context:
                too_long.append(example.row)
            inside = sum(example.answer[1 : recipe.max_length])
            if inside == 0:
                masked.append(example.row)
            elif len(example.ids) > recipe.max_length:
                # Its last token is one of the answer's.
                cut.append(example.row)
    return np.array(masked, np.int64), np.array(cut, np.int64), np.array(too_long, np.int64)


def _sample_measures(
    sample: Sequence[Example], tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> tuple[float, float]:
    special = special_tokens(tokenizer)
    lengths: list[int] = []
    ended: list[bool] = []
    for at in range(0, len(sample), _BATCH_ROWS):
        batch = [trimmed(row, recipe.max_length) for row in sample[at : at + _BATCH_ROWS]]
        for example in _encode(batch, tokenizer, recipe, recipe.max_length + 1):
            lengths.append(min(len(example.ids), recipe.max_length))
            if len(example.ids) <= recipe.max_length and example.answer_tokens:
                ended.append(is_ended(example, special))
    return (
        float(np.mean(lengths)) if lengths else float("nan"),
        float(np.mean(ended)) if ended else float("nan"),
    )


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of all special tokens: the end of a turn is often an added one without a part of its own."""
    added = tokenizer.added_tokens_decoder
    return frozenset([*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)])


def is_ended(row: Encoded, special: frozenset[int]) -> bool:
    """Whether the last tokens of ``row`` that are trained hold a special one; a line may follow it."""
    trained = [token for token, own in zip(row.ids, row.answer, strict=True) if own]
    return not special.isdisjoint(trained[-_END_TOKENS:])


def _encode(
    rows: Sequence[Example], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, max_length: int
) -> list[Encoded]:
    from tuneahead.training.encode import encode_examples

    return encode_examples(rows, tokenizer, recipe.model_copy(update={"max_length": max_length}))


def trimmed(example: Example, max_length: int) -> Example:
    """The row with texts cut far beyond the window: a whole book in one row need not be tokenised."""
    return shortened(example, _CHARACTERS_PER_TOKEN * max_length)
