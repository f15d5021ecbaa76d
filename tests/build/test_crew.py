"""Workers of this machine are heard whatever becomes of the others."""

from __future__ import annotations

import multiprocessing
import os
import queue
import struct

import pytest

from tuneahead.build.crew import _Pipes, _Voice, how_it_ended


def test_a_worker_killed_in_the_middle_of_a_message_silences_no_other() -> None:
    pipes = _Pipes()
    dead_heard, dead_said = multiprocessing.Pipe(duplex=False)
    heard, said = multiprocessing.Pipe(duplex=False)
    pipes.add(dead_heard)
    pipes.add(heard)
    # The length of a message comes first: of this one's 100 bytes seven were sent.
    os.write(dead_said.fileno(), struct.pack("!i", 100) + b"stopped")
    dead_said.close()
    _Voice(said).put(("ready", 1, None))
    assert pipes.get(timeout=10) == ("ready", 1, None)
    assert pipes.empty() and len(pipes.pipes) == 1


def test_what_a_worker_said_before_its_end_is_heard_in_order() -> None:
    pipes = _Pipes()
    heard, said = multiprocessing.Pipe(duplex=False)
    pipes.add(heard)
    for steps in (3, 4):
        _Voice(said).put(("steps", 1, steps))
    said.close()
    assert not pipes.empty()
    assert [pipes.get(timeout=10)[2] for _ in range(2)] == [3, 4]
    with pytest.raises(queue.Empty):
        pipes.get(timeout=0.01)


def test_a_worker_that_ended_by_an_error_leads_to_it() -> None:
    assert how_it_ended(1) == "the worker ended with 1: its error stands above"
    assert how_it_ended(3) == "the worker ended with 3" and how_it_ended(None) == "the worker ended with None"


def test_a_worker_whose_builder_is_gone_ends() -> None:
    heard, said = multiprocessing.Pipe(duplex=False)
    heard.close()
    with pytest.raises(SystemExit):
        _Voice(said).put(("ready", 1, None))
