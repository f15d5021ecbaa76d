"""The catalogue of features: one row each, and the only list of them."""

from __future__ import annotations

from tuneahead.features.catalogue_cue import CUE
from tuneahead.features.catalogue_dynamic import DYNAMIC
from tuneahead.features.catalogue_recipe import RECIPE
from tuneahead.features.catalogue_static import STATIC
from tuneahead.features.featurespec import FeatureSpec, Group

__all__ = ["CATALOGUE", "CATALOGUE_VERSION", "FeatureSpec", "names_of", "spec"]

CATALOGUE_VERSION = "2"
"""Raised whenever a change of names or formulas makes the vectors of the packaged runs stale."""

CATALOGUE: tuple[FeatureSpec, ...] = STATIC + DYNAMIC + RECIPE + CUE

_BY_NAME = {row.name: row for row in CATALOGUE}


def spec(name: str) -> FeatureSpec:
    """The row of one feature; KeyError for a name that the catalogue does not hold."""
    return _BY_NAME[name]


def names_of(*groups: Group, paper: bool = False) -> tuple[str, ...]:
    """Names in the catalogue's order: of some groups, or of all; with ``paper`` only the 24 of the notes.

    >>> len(names_of("static", paper=True)), len(names_of("dynamic", paper=True))
    (14, 10)
    """
    return tuple(
        row.name for row in CATALOGUE if (not groups or row.group in groups) and (row.paper or not paper)
    )
