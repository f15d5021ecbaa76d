"""The feature vector of one task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FeatureVector:
    """Values by feature name, in the catalogue's order; an absent one is NaN with a reason."""

    values: Mapping[str, float]
    absent: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    def aligned(self, names: Iterable[str]) -> list[float]:
        """Values in the order of ``names``; a name this vector lacks is NaN."""
        return [self.values.get(name, math.nan) for name in names]

    def without(self, reasons: Mapping[str, str]) -> FeatureVector:
        """The vector with these features absent, each for its reason; names it lacks are passed over."""
        own = {name: why for name, why in reasons.items() if name in self.values}
        if not own:
            return self
        return FeatureVector({**self.values, **dict.fromkeys(own, math.nan)}, {**self.absent, **own})

    def merged(self, other: FeatureVector) -> FeatureVector:
        """Both vectors in one; names must not overlap."""
        clash = self.values.keys() & other.values.keys()
        assert not clash, clash
        return FeatureVector({**self.values, **other.values}, {**self.absent, **other.absent})
