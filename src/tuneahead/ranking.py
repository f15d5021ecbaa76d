"""How sure a ranking of recipes is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuneahead.assessment import NAN, Assessment


def best_chances(found: Sequence[Assessment]) -> tuple[float, ...]:
    """Probability that each recipe's full run ends best of all, for assessments of one data set.

    NaN for recipes without a forecast, and for all where the predictor does not know how far the errors
    of recipes lie apart, or fewer than two are in the race. A run that the probe completed is in it with
    the score it has.

    >>> recipes = [Recipe(learning_rate=rate) for rate in (1e-4, 1e-3)]
    >>> ranked = rank("tickets.jsonl", recipes)  # doctest: +SKIP
    >>> best_chances(ranked)  # doctest: +SKIP
    (0.83, 0.17)
    """
    import numpy as np

    from tuneahead.predictor.chances import chances_of_best

    scores = [_score_and_sd(one) for one in found]
    racing = [place for place, (score, _) in enumerate(scores) if math.isfinite(score)]
    chances = [NAN] * len(found)
    if len(racing) > 1 and all(math.isfinite(scores[place][1]) for place in racing):
        column = np.array([scores[place] for place in racing])
        for place, chance in zip(racing, chances_of_best(column[:, 0], column[:, 1]), strict=True):
            chances[place] = float(chance)
    return tuple(chances)


def _score_and_sd(one: Assessment) -> tuple[float, float]:
    if one.forecast is not None:
        return one.forecast.score_pp, one.forecast.recipe_sd_pp
    return one.final_pp, 0.0
