"""Fixtures of the training tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from training_fixtures import write_tiny_model

from tuneahead.training.models import Base, load_base


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(tiny_path: Path) -> Base:
    return load_base(str(tiny_path), device="cpu")
