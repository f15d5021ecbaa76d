"""Catalogue rows of the data."""

from __future__ import annotations

from tuneahead.features.featurespec import FeatureSpec

STATIC: tuple[FeatureSpec, ...] = ()
