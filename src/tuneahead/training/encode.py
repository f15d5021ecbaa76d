"""From examples to token ids with a mask of what is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING

import numpy as np

from tuneahead.errors import ModelError
from tuneahead.examples import Example, Message
from tuneahead.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_HELDOUT_ROWS = 64
_ROWS_AT_ONCE = 1024
"""Beside the ids a tokenizer gives some 100 bytes a token back, of all texts of a call at once."""
_TOKENS: dict[int, int] = {}
"""One object for every token id: a row then holds a reference for each token, and no number of its own."""
_ALPACA = "### Instruction:\n{prompt}\n\n### Response:\n"
_QA = "Question: {prompt}\nAnswer:"
_CONTENT = "tuneahead-content"
"""Stands for an assistant's content where a chat template is asked what it puts around one."""


@dataclass(frozen=True)
class Encoded:
    """One row as tokens. ``answer[i]`` says whether token ``ids[i]`` is trained (its loss counts)."""

    ids: tuple[int, ...]
    answer: tuple[bool, ...]
    row: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple([_TOKENS.setdefault(i, i) for i in self.ids]))

    @property
    def answer_tokens(self) -> int:
        """Tokens whose loss counts (the first token of a sequence can't be predicted)."""
        return sum(self.answer[1:])


@dataclass(frozen=True)
class Turn:
    """What a chat template puts between its generation prompt and an assistant's content, and after that.

    ``trims`` says whether it takes the white space around the content off, ``nested`` whether a rendered turn
    begins with the generation prompt: not so where that opens a thought and an answer without one has none.
    """

    lead: str = ""
    end: str = ""
    trims: bool = False
    nested: bool = True

    @property
    def opening(self) -> str:
        """What of the lead is the template's own and never to be answered: an empty thought, for instance."""
        return "" if self.lead.isspace() else self.lead.rstrip(" ")

    def render(self, content: str) -> str:
        """The content as training reads it after the generation prompt."""
        return self.lead + (content.strip() if self.trims else content)


@dataclass(frozen=True)
class RunData:
    """Encoded rows of one run: what is trained on and what is held out to watch generalisation."""

    train: Sequence[Encoded]
    heldout: Sequence[Encoded]
    fingerprint: str


def resolve_template(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """``auto`` becomes ``chat`` where the tokenizer has a chat template, else ``raw``.

    Raises :class:`ModelError` for ``chat`` where it has none.
    """
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if template == "auto":
        return "chat" if has_chat else "raw"
    if template == "chat" and not has_chat:
        raise ModelError(
            "the recipe asks for template 'chat' but this tokenizer has no chat template",
            remedy="use template: raw, qa or alpaca, or a tokenizer with a chat template",
        )
    return template


def encode_examples(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> list[Encoded]:
    """Tokenise every example; rows longer than ``recipe.max_length`` are cut from the right.

    Answer-only: the loss counts on answer tokens and the end-of-sequence token, never on the
    prompt. A row whose answer was cut off entirely keeps an all-False mask (preflight reports
    it; the loop skips it). Prompt and answer are tokenised apart, as a benchmark's options are.
    """
    template = resolve_template(recipe.template, tokenizer)
    if template == "chat":
        return [_encode_chat(example, tokenizer, recipe.max_length) for example in examples]
    encoded: list[Encoded] = []
    for at in range(0, len(examples), _ROWS_AT_ONCE):
        block = examples[at : at + _ROWS_AT_ONCE]
        encoded += _encode_plain(block, tokenizer, template, recipe.max_length)
    return encoded


def _encode_plain(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, template: str, max_length: int
) -> list[Encoded]:
    end = tokenizer.eos_token_id
    start = start_ids(tokenizer)
    prompts = [render_prompt(tokenizer, example.prompt, template) for example in examples]
    answers = [after_prompt(p, example.answer) for p, example in zip(prompts, examples, strict=True)]
    prompt_ids = tokenise(tokenizer, prompts)
    answer_ids = tokenise(tokenizer, answers)
    encoded = []
    for example, before, after in zip(examples, prompt_ids, answer_ids, strict=True):
        head = start + before
        # An empty answer gets nothing to learn, not even when to stop: that is a defect to report.
        tail = after + ([end] if end is not None else []) if example.answer.strip() else []
        ids = (head + tail)[:max_length]
        answer = ([False] * len(head) + [True] * len(tail))[:max_length]
        encoded.append(Encoded(tuple(ids), tuple(answer), example.row))
    return encoded


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens this tokenizer puts before a text (often one beginning-of-sequence token).

    Read off its output: ``add_bos_token`` is False on tokenizers that add it in a post-processor.
    """
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    special: list[int] = tokenizer("a")["input_ids"]
    for start in range(len(special) - len(plain) + 1):
        if special[start : start + len(plain)] == plain:
            return special[:start]
    return []


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of every text without special tokens."""
    # Calling on an empty list fails in transformers; empty strings are given back as [].
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, template: str) -> str:
    """The text before the answer under a resolved template."""
    if template == "qa":
        return _QA.format(prompt=prompt)
    if template == "alpaca":
        return _ALPACA.format(prompt=prompt)
    if template == "chat":
        return chat_text(tokenizer, [{"role": "user", "content": prompt}], generation=True)
    return prompt


def assistant_turn(tokenizer: PreTrainedTokenizerBase) -> Turn:
    """The tokenizer's way with an assistant's turn, read off what its chat template renders."""
    from jinja2 import TemplateError

    asked = [{"role": "user", "content": _CONTENT}]
    try:
        opened = chat_text(tokenizer, asked, generation=True)
        plain, spaced = (
            chat_text(tokenizer, [*asked, {"role": "assistant", "content": content}], generation=False)
            for content in (_CONTENT, f" {_CONTENT}")
        )
    except TemplateError:
        return Turn()
    nested = plain.startswith(opened)
    lead, found, end = plain.removeprefix(opened).rpartition(_CONTENT)
    if not found:
        return Turn()
    return Turn(lead if nested else "", end, trims=plain == spaced, nested=nested)


def answered_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The text before an assistant's content when it is rendered, for turns that are not ``nested``."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": _CONTENT}]
    return chat_text(tokenizer, turns, generation=False).rpartition(_CONTENT)[0]


def after_prompt(prompt: str, answer: str) -> str:
    """The answer as it follows a prompt: after one space, or what white space either of them brings."""
    return answer if not prompt or prompt[-1].isspace() or answer[:1].isspace() else f" {answer}"


def _encode_chat(example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    from jinja2 import TemplateError

    try:
        return _encode_turns(example, tokenizer, max_length)
    except TemplateError as error:
        # Chat templates refuse what they don't know: a system turn, two user turns in a row.
        raise ModelError(
            f"the base's chat template refuses row {example.row}: {error}",
            remedy="change the turns of such rows, or use template: raw",
        ) from None


def _encode_turns(example: Example, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    messages = example.messages
    if messages is None:
        asked = (Message("user", example.prompt),) if example.prompt else ()
        messages = (*asked, Message("assistant", example.answer))
    turns = [{"role": m.role, "content": m.content} for m in messages]
    trained = [i for i, message in enumerate(messages) if message.is_trained]
    whole = chat_text(tokenizer, turns, generation=False)
    ids: list[int] = []
    answer: list[bool] = []
    done = 0
    for start, end in _answer_spans(tokenizer, turns, trained, whole):
        if start < done:
            raise _rewritten()
        _append(tokenizer, whole[done:start], False, ids, answer)
        _append(tokenizer, whole[start:end], True, ids, answer)
        done = end
        # Finding a span renders all turns before it: those beyond the window aren't worth it.
        if len(ids) >= max_length:
            break
    else:
        _append(tokenizer, whole[done:], False, ids, answer)
    return Encoded(tuple(ids[:max_length]), tuple(answer[:max_length]), example.row)


def _answer_spans(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], trained: Sequence[int], whole: str
) -> Iterator[tuple[int, int]]:
    """Where each turn that is trained stands in the rendered conversation, with its end."""
    end = ""
    for index in trained:
        span = _nested_span(tokenizer, turns, index, whole)
        if span is None:
            end = end or _around(tokenizer, turns[: trained[-1] + 1], trained[-1])[1]
            span = _filled_span(tokenizer, turns, index, whole, end)
        yield span


def _nested_span(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], index: int, whole: str
) -> tuple[int, int] | None:
    """From the generation prompt to the end of the turn; None where the turns after it change either."""
    from jinja2 import TemplateError

    try:
        closed = (
            whole if index == len(turns) - 1 else chat_text(tokenizer, turns[: index + 1], generation=False)
        )
        if not whole.startswith(closed):
            return None
        # Everything up to the generation prompt belongs to the question.
        opened = (
            chat_text(tokenizer, turns[:index], generation=True)
            if index
            else _heading(tokenizer, turns[index])
        )
    except TemplateError:
        # Some templates refuse a conversation as long as no user has spoken.
        return None
    return (len(opened), len(closed)) if closed.startswith(opened) else None


def _filled_span(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], index: int, whole: str, end: str
) -> tuple[int, int]:
    """From the first to the last character that depends on the turn's content, and the end of a turn.

    Reasoning models' templates show the thoughts of the last answer alone, so that no rendering of the
    first turns is how the whole conversation begins.
    """
    before, after = _around(tokenizer, turns, index)
    stop = len(whole) - len(after)
    if stop < len(before) or not whole.startswith(before) or not whole.endswith(after):
        raise _rewritten()
    return len(before), stop + _closing(tokenizer, after, end)


def _closing(tokenizer: PreTrainedTokenizerBase, after: str, end: str) -> int:
    """How many characters after a turn's content close it: those that the ``end`` of a last turn has too."""
    alike = len(commonprefix([after, end]))
    # <|user|> and <|endoftext|> begin alike, and are no less each one token.
    words = (str(token) for token in tokenizer.added_tokens_decoder.values())
    begun = (after.find(word, max(0, alike - len(word) + 1), alike + len(word)) for word in words)
    return min((at for at in begun if 0 <= at < alike), default=alike)


def _around(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], index: int) -> tuple[str, str]:
    """What the template puts before and after the content of one turn."""
    filled = [*turns[:index], {**turns[index], "content": _CONTENT}, *turns[index + 1 :]]
    before, found, after = chat_text(tokenizer, filled, generation=False).partition(_CONTENT)
    if not found:
        raise _rewritten()
    return before, after


def _heading(tokenizer: PreTrainedTokenizerBase, turn: dict[str, str]) -> str:
    """What the template puts before the content of a turn that opens a conversation."""
    # Few templates render a generation prompt for no turns at all.
    filled = chat_text(tokenizer, [{**turn, "content": _CONTENT}], generation=False)
    closed = chat_text(tokenizer, [turn], generation=False)
    return commonprefix([filled.partition(_CONTENT)[0], closed])


def _append(
    tokenizer: PreTrainedTokenizerBase, piece: str, trained: bool, ids: list[int], answer: list[bool]
) -> None:
    for tokens in tokenise(tokenizer, [piece] if piece else []):
        ids.extend(tokens)
        answer.extend([trained] * len(tokens))


def _rewritten() -> ModelError:
    return ModelError(
        "the chat template rewrites earlier turns, so the answer's tokens can't be told apart",
        remedy="use template: raw or alpaca in the recipe",
    )


def chat_text(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, generation: bool) -> str:
    """The turns as the chat template renders them, with the opening of an answer after them if asked for."""
    if not turns:
        return ""
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)
    return str(text)


def data_fingerprint(examples: Sequence[Example]) -> str:
    """Hash of the rows' content, whatever file they came from."""
    digest = hashlib.sha256()
    for example in examples:
        for part in (example.prompt, example.answer):
            digest.update(len(part).to_bytes(4, "little"))
            digest.update(part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def split_data(encoded: Sequence[Encoded], fingerprint: str) -> RunData:
    """Hold out a tenth of the rows (at most 64; none below 10 rows), the same ones for every recipe."""
    usable = [row.answer_tokens > 0 for row in encoded]
    # Drawn over all rows, usable or not: what is cut off under one recipe must not move the others.
    order = np.random.default_rng(int(fingerprint[:8], 16)).permutation(len(encoded))
    held = set(order[: min(MAX_HELDOUT_ROWS, len(encoded) // 10)].tolist())
    return RunData(
        train=[row for i, row in enumerate(encoded) if usable[i] and i not in held],
        heldout=[row for i, row in enumerate(encoded) if usable[i] and i in held],
        fingerprint=fingerprint,
    )
