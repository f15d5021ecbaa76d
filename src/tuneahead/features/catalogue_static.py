"""Catalogue rows of the data: text, sentence vectors, likeness to the benchmark, the base's opinion."""

from __future__ import annotations

import math
from functools import partial

from tuneahead.features.catalogue_text import TEXT_SECTIONS
from tuneahead.features.featurespec import FeatureSpec

_INF = math.inf
_row = partial(FeatureSpec, group="static", source="ours")
_free = partial(_row, scale_free=True)
_SEMANTIC = "arXiv 2606.17660, semantic diversity"
_MODEL = "arXiv 2606.17660, model-based complexity"
_COMPLETED = "ours, with the twelve that arXiv 2606.17660 names"
_PROXY = "ours, after the Domain-Proxy baseline of arXiv 2606.17660"

_TOPIC = "add rows on the benchmark's subjects, in its kind of wording"
_FORM = "write prompts in the benchmark's form, and answers like its options"
_STRAY = "look at the rows that resemble no other: they may belong to another task"
_VARY = "vary the wording, or add rows from other sources"
_PAIRS = "check that answers belong to their prompts: a shifted column looks like this"
MISMATCH = (
    "rephrase prompts and answers closer to what the base was trained on, in its chat template if it has one"
)
_KNOWN = "rows whose answers the base gives already teach it little: replace them by ones that it gets wrong"

_VECTORS = (
    _free(
        name="outlier_fraction", estimate="share",
        unit="fraction", low=0, high=1, direction=-1, source=_SEMANTIC, paper=True,
        formula="share of different rows (sample of 2,000) whose local outlier factor (Breunig et al. 2000, "
        "20 neighbours, cosine distance of wordllama vectors of a text's first 2,000 characters) exceeds 1.5",
        sentence="{value} of the rows lie apart from those they resemble most", remedy=_STRAY,
    ),
    _free(
        name="isolated_fraction", estimate="sample", unit="fraction", low=0, high=1, direction=-1,
        formula="share of different rows (sample of 2,000) whose nearest other has a cosine below 0.5",
        sentence="{value} of the rows resemble no other", remedy=_STRAY,
    ),
    _free(
        name="prompt_answer_similarity", estimate="mean",
        unit="ratio", low=-1, high=1, direction=0, source=_COMPLETED,
        paper=True,
        formula="mean cosine of the vectors of prompt and answer (sample of 2,000 rows); for all vectors the "
        "user's last turn stands for the prompt of a conversation above 2,000 characters",
        sentence="prompts and answers have a similarity of {value}", remedy=_PAIRS, remedy_side=-1,
    ),
    _free(
        name="prompt_answer_similarity_gap", estimate="mean", unit="ratio", low=-2, high=2, direction=1,
        formula="prompt_answer_similarity minus the mean cosine of prompts with other rows' answers",
        sentence="answers are nearer to their own prompt than to others by {value}", remedy=_PAIRS,
    ),
    _free(
        name="embedding_spread", estimate="sample", unit="ratio", low=0, high=1, direction=0,
        formula="1 - squared length of the mean row vector (mean cosine distance of two rows, each row's "
        "distance of 0 from itself included)",
        sentence="rows have a mean distance of {value}, their own from themselves included", remedy=_VARY,
        remedy_side=-1,
    ),
    _free(
        name="embedding_dimensions", estimate="sample", unit="dimensions", low=1, high=256, direction=0,
        formula="(sum of eigenvalues)^2 / sum of their squares, of the row vectors' covariance",
        sentence="the rows spread over {value}", remedy=_VARY, remedy_side=-1,
    ),
    _free(
        name="nearest_row_similarity", estimate="sample", unit="ratio", low=-1, high=1, direction=0,
        formula="mean cosine of a row with the nearest other row (sample of 2,000)",
        sentence="a row's nearest other has a similarity of {value}", remedy=_VARY, remedy_side=1,
    ),
)

_LIKENESS = (
    _free(
        name="benchmark_similarity", estimate="mean",
        unit="ratio", low=-1, high=1, direction=1, source=_PROXY,
        formula="cosine of the mean prompt vector with the mean vector of the benchmark's prompts",
        sentence="prompts and benchmark have a similarity of {value}", remedy=_TOPIC,
    ),
    _free(
        name="benchmark_nearest_similarity", estimate="sample",
        unit="ratio", low=-1, high=1, direction=1, source=_PROXY,
        formula="mean over benchmark items (sample of 1,000) of the cosine with the nearest prompt",
        sentence="a benchmark item's nearest prompt has a similarity of {value}", remedy=_TOPIC,
    ),
    _free(
        name="benchmark_coverage_fraction", estimate="sample",
        unit="fraction", low=0, high=1, direction=1, source=_PROXY,
        formula="share of benchmark items whose nearest prompt has a cosine of 0.85 or more",
        sentence="{value} of the benchmark items have a prompt like them", remedy=_TOPIC,
    ),
    _free(
        name="benchmark_relevance", estimate="mean", unit="ratio", low=-1, high=1, direction=1, source=_PROXY,
        formula="mean over prompts of the cosine with the nearest benchmark item",
        sentence="a prompt's nearest benchmark item has a similarity of {value}", remedy=_TOPIC,
    ),
    _free(
        name="benchmark_form_fraction", estimate="share", unit="fraction", low=0, high=1, direction=1,
        formula="share of prompts whose first word and last sign are those of a benchmark prompt",
        sentence="{value} of the prompts have the benchmark's form", remedy=_FORM,
    ),
    _free(
        name="answer_is_option_fraction", estimate="share", unit="fraction", low=0, high=1, direction=1,
        formula="share of answers whose words are those of an option of the benchmark",
        sentence="{value} of the answers are options of the benchmark", remedy=_FORM,
    ),
    _free(
        name="option_coverage_fraction", estimate="sample", unit="fraction", low=0, high=1, direction=1,
        formula="share of the benchmark's distinct options that occur as an answer",
        sentence="{value} of the benchmark's options occur as answers", remedy=_TOPIC,
    ),
    _free(
        name="option_length_mismatch", estimate="sample", unit="ratio", low=0, high=_INF, direction=-1,
        formula="|ln(mean words of an answer / mean words of an option)|",
        sentence="answers and options differ in length by {value} (ln)", remedy=_FORM,
    ),
)

_BASE = (
    _row(
        name="reference_loss_nats", estimate="mean",
        unit="nats/token", low=0, high=_INF, direction=-1, source=_MODEL,
        paper=True,
        formula="the base's loss per answer token given the prompt: log of the reference perplexity (sample "
        "of up to 128 rows and about 8,192 tokens, template auto, in a Trainer as they are trained; whatever "
        "max_length is, a row is cut after 512 tokens or the base's window, before the end of its prompt "
        "where that left no answer)",
        sentence="the base's loss on the answers is {value}", remedy=MISMATCH,
    ),
    _row(
        name="reference_loss_sd_nats", estimate="sample",
        unit="nats/token", low=0, high=_INF, direction=0, source=_COMPLETED,
        paper=True,
        formula="standard deviation over rows of the base's loss per answer token",
        sentence="the base's loss varies by {value} between rows", remedy=_STRAY, remedy_side=1,
    ),
    _free(
        name="reference_loss_cv", estimate="sample", unit="ratio", low=0, high=_INF, direction=0,
        formula="reference_loss_sd_nats / mean over rows of the base's loss per answer token",
        sentence="the base's loss varies by {value} of its mean between rows", remedy=_STRAY, remedy_side=1,
    ),
    _row(
        name="reference_loss_p10_nats", estimate="sample", unit="nats/token", low=0, high=_INF, direction=-1,
        formula="10 % quantile over rows of the base's loss per answer token",
        sentence="a tenth of the rows cost the base less than {value}", remedy=_KNOWN, remedy_side=-1,
    ),
    _row(
        name="reference_loss_p90_nats", estimate="sample", unit="nats/token", low=0, high=_INF, direction=-1,
        formula="90 % quantile over rows of the base's loss per answer token",
        sentence="a tenth of the rows cost the base more than {value}", remedy=_STRAY,
    ),
    _free(
        name="base_token_accuracy", estimate="mean", unit="fraction", low=0, high=1, direction=1,
        formula="share of answer tokens that are the base's first choice, given all before",
        sentence="the base guesses {value} of the answer tokens", remedy=MISMATCH,
    ),
    _free(
        name="base_knows_fraction", estimate="share", unit="fraction", low=0, high=1, direction=0,
        formula="share of rows all of whose answer tokens (closing special tokens apart) are the base's "
        "first choice",
        sentence="the base gives {value} of the answers already", remedy=_KNOWN, remedy_side=1,
    ),
    _row(
        name="answer_alone_loss_nats", estimate="mean", unit="nats/token", low=0, high=_INF, direction=0,
        formula="the base's loss per answer token after the token that begins a text, without the prompt "
        "(in a conversation of the last answer alone, as in all prompt gains)",
        sentence="without their prompts the answers cost the base {value}",
    ),
    _row(
        name="prompt_gain_nats", estimate="mean", unit="nats/token", low=-_INF, high=_INF, direction=1,
        formula="answer_alone_loss_nats - loss given the prompt: what a prompt tells the base about its "
        "answer",
        sentence="a prompt saves the base {value}", remedy=_PAIRS,
    ),
    _free(
        name="prompt_gain_ratio", estimate="mean", unit="ratio", low=-_INF, high=1, direction=1,
        formula="prompt_gain_nats / answer_alone_loss_nats",
        sentence="a prompt saves the base {value} of the loss", remedy=_PAIRS,
    ),
    _row(
        name="own_prompt_gain_nats", estimate="mean", unit="nats/token", low=-_INF, high=_INF, direction=1,
        source="ours, after Ethayarajh et al. 2022 (arXiv 2110.08420)",
        formula="the base's loss per answer token given another row's prompt minus that given its own",
        sentence="its own prompt saves an answer {value} over a stranger's", remedy=_PAIRS,
    ),
    _free(
        name="own_prompt_gain_ratio", estimate="mean", unit="ratio", low=-_INF, high=1, direction=1,
        source="ours, after Ethayarajh et al. 2022 (arXiv 2110.08420)",
        formula="own_prompt_gain_nats / loss given another row's prompt",
        sentence="its own prompt saves an answer {value} of the loss under a stranger's", remedy=_PAIRS,
    ),
)

STATIC_SECTIONS: dict[str, tuple[FeatureSpec, ...]] = {
    **TEXT_SECTIONS,
    "Meaning (sentence vectors)": _VECTORS,
    "Likeness to the benchmark": _LIKENESS,
    "The base's opinion": _BASE,
}
"""Every static row by what it is about, for a reader."""

STATIC: tuple[FeatureSpec, ...] = tuple(row for rows in STATIC_SECTIONS.values() for row in rows)
