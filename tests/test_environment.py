"""Environment variables for a while."""

from __future__ import annotations

import os

import pytest

from tuneahead.environment import environment


def test_variables_are_as_they_were_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEAHEAD_SET", "own")
    monkeypatch.delenv("TUNEAHEAD_UNSET", raising=False)
    with pytest.raises(KeyError), environment({"TUNEAHEAD_SET": "other", "TUNEAHEAD_UNSET": "new"}):
        assert (os.environ["TUNEAHEAD_SET"], os.environ["TUNEAHEAD_UNSET"]) == ("other", "new")
        raise KeyError
    assert os.environ["TUNEAHEAD_SET"] == "own" and "TUNEAHEAD_UNSET" not in os.environ
