"""Shared inputs of the feature tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from feature_fixtures import write_tiny_base

from tuneahead.training.models import Base, load_base


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A random two-layer base with a word tokenizer."""
    return load_base(str(write_tiny_base(tmp_path_factory.mktemp("tiny"))), device="cpu")
