"""The predictors that a gate is given: loaded, those of early looks by their step, and what they know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.errors import PredictorError
from tuneahead.workbench import FITTED, fit_command, shipped_for, why_misnamed, why_unknown

if TYPE_CHECKING:
    from tuneahead.benchmark.items import Benchmark
    from tuneahead.predictor.predictor import Predictor


def loaded(predictor: Predictor | str | Path | None) -> Predictor | None:
    """The predictor, read where its folder is named; raises :class:`PredictorError` for what holds none."""
    from tuneahead.predictor.predictor import Predictor, load_predictor

    if isinstance(predictor, (str, Path)):
        return load_predictor(predictor)
    if predictor is not None and not isinstance(predictor, Predictor):
        raise PredictorError(
            f"{predictor!r} is no predictor", remedy="give one that was fitted, its folder, or None"
        )
    return predictor


def several(early: Sequence[Predictor | str | Path] | Predictor | str | Path) -> list[Predictor | None]:
    """The predictors of early looks, where one alone was given too."""
    if isinstance(early, Iterable) and not isinstance(early, str):
        return [loaded(one) for one in early]
    # A name alone is a sequence of letters, too.
    return [loaded(early)]


def by_length(early: Sequence[Predictor | None], probe_steps: int) -> dict[int, Predictor]:
    """Predictors of early looks by their step, in order; raises :class:`PredictorError` for other ones."""
    found: dict[int, Predictor] = {}
    for one in early:
        if one is None:
            raise PredictorError(
                "early holds None", remedy="give a predictor or its folder for each early look"
            )
        steps = one.origin.probe_steps
        if steps >= probe_steps or steps in found:
            why = "there are two of them" if steps in found else f"the probe ends at step {probe_steps}"
            raise PredictorError(
                f"early holds a predictor of probes of {steps} steps, but {why}",
                remedy=f"give one for each length below {probe_steps}: tuneahead fit --probe-steps 50",
            )
        found[steps] = one
    return dict(sorted(found.items()))


def known_predictor(
    predictor: Predictor | None, base: str, benchmark: Benchmark
) -> tuple[Predictor | None, str]:
    """The predictor, or the shipped one, if it knows this base and benchmark, else why not."""
    if predictor is None:
        predictor, absent = shipped_for(base)
        if predictor is None:
            return None, absent
    absent = why_unknown(predictor, base, benchmark.name, benchmark.identity)
    if not absent:
        return predictor, ""
    if misnamed := why_misnamed(base, predictor.origin.bases):
        return None, f"{absent}, {misnamed}"
    keep = (
        "keep your runs, on nine data sets or more, with Gate(store='runs.sqlite'), record their scores, then"
    )
    return None, f"{absent}; {keep} {fit_command(benchmark.name)}, then Gate({FITTED!r}, ...)"
