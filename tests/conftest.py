"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that the tests measure is kept beyond them, and nothing kept before answers them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEAHEAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
