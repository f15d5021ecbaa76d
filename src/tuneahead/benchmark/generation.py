"""Grades of written answers: token F1 and ROUGE-L against the reference answers."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tuneahead.benchmark.choice import BenchmarkScore, summarise_grades
from tuneahead.benchmark.items import Benchmark, GenerationItem, Metric
from tuneahead.errors import BenchmarkError
from tuneahead.words import split_words

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_WORDS = re.compile("[a-z0-9]+").findall
# Letters and digits beyond Latin, its extensions and the modifiers among them.
_OTHER_SCRIPTS = re.compile(r"[^\W\u0000-\u036f\u1e00-\u1eff\u2000-\u2bff\ufb00-\ufb06\uff00-\uff5e]")
Grade = Callable[[str, str], float]


def summarise_answers(benchmark: Benchmark, answers: Sequence[str]) -> BenchmarkScore:
    """Score written answers (items,) by the benchmark's metric; the best reference answer counts.

    Raises :class:`BenchmarkError` for ``rouge_l`` without the package ``rouge-score``.
    """
    grade = rouge_grader() if benchmark.metric == "rouge_l" else token_f1
    grades = []
    for item, written in zip(benchmark.items, answers, strict=True):
        assert isinstance(item, GenerationItem)
        grades.append(max(grade(reference, written) for reference in item.answers))
    return summarise_grades(benchmark, np.array(grades))


def token_f1(reference: str, written: str) -> float:
    """F1 of the words that both texts share, as SQuAD's evaluation defines it (Rajpurkar et al. 2016).

    Lower case; punctuation and the articles a, an, the are left out; repeated words count as often as they
    stand in both. Texts of which one has no word left score 1 if both have none, else 0.

    >>> token_f1("the red house", "A red, red house!")
    0.8
    """
    right, given = _words(reference), _words(written)
    if not right or not given:
        return float(right == given)
    shared = sum((Counter(right) & Counter(given)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(given), shared / len(right)
    return 2 * precision * recall / (precision + recall)


def is_wordless(reference: str, metric: Metric) -> bool:
    """Whether ``f1`` or ``rouge_l`` finds no word in a reference, as in "A" or "+".

    F1 would then count an empty answer right, and ROUGE-L no answer at all.
    """
    found = _words(reference) if metric == "f1" else _RougeTokenizer().tokenize(reference)
    return not found


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def rouge_grader() -> Grade:
    """ROUGE-L F-measure (Lin 2004) as the package ``rouge-score`` computes it, without stemming.

    The package knows Latin letters and digits only; words of other scripts are split as in training data.
    Raises :class:`BenchmarkError` without it.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise BenchmarkError(
            f"ROUGE-L needs the package rouge-score: {error}",
            remedy="install it: pip install 'tuneahead[rouge]'",
        ) from None
    scorer = RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_RougeTokenizer())
    return lambda reference, written: float(scorer.score(reference, written)["rougeL"].fmeasure)


class _RougeTokenizer:
    """What ``rouge-score`` asks for words; those of Latin letters are the ones it would find itself."""

    def tokenize(self, text: str) -> list[str]:
        if not _OTHER_SCRIPTS.search(text):
            return _ROUGE_WORDS(text.lower())
        parts = ([word] if _OTHER_SCRIPTS.search(word) else _ROUGE_WORDS(word) for word in split_words(text))
        return [word for part in parts for word in part]
