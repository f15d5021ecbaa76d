"""The tiny model that the integrations are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest
from training.training_fixtures import write_tiny_model

from tuneahead.training.models import Base, load_base


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder."""
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def base(path: Path) -> Base:
    """The model, loaded once a module."""
    return load_base(str(path), device="cpu")
