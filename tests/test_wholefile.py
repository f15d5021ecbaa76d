"""Files written whole or not at all, whatever lies there and whatever comes between."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_assessment import made_assessment

from tuneahead.assessment import read_assessment
from tuneahead.errors import TuneAheadError
from tuneahead.report import write_html
from tuneahead.wholefile import whole_file, write_whole

unix = pytest.mark.skipif(sys.platform == "win32", reason="limits and pipes of Unix")


@contextmanager
def room_for(most_bytes: int) -> Iterator[None]:
    """No file may become larger, as on a full disk."""
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


@unix
def test_a_full_disk_leaves_the_report_and_the_assessment_that_were_there(tmp_path: Path) -> None:
    found, page, saved = made_assessment(), tmp_path / "report.html", tmp_path / "found.json"
    write_html(found, page)
    found.save(saved)
    before = page.read_bytes()
    with room_for(20_000):
        with pytest.raises(TuneAheadError, match="can't write the report to .*: File too large") as caught:
            write_html(found, page)
        with pytest.raises(OSError, match="File too large"):
            found.save(saved)
        with pytest.raises(TuneAheadError):
            write_html(found, tmp_path / "new.html")
    assert "on a disk with room" in caught.value.remedy
    assert page.read_bytes() == before and read_assessment(saved).to_json() == found.to_json()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "report.html"]


def test_what_a_killed_writer_leaves_stands_under_no_name_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(b"whole")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as part:
        part.write_bytes(b"ha")
        assert path.read_bytes() == b"whole" and part.parent == tmp_path
        raise KeyboardInterrupt
    assert [one.name for one in tmp_path.iterdir()] == ["table"]


@unix
def test_a_link_and_the_files_mode_stay_as_they_were(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


@unix
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_whole(pipe, b"all of it")
    reader.join(timeout=10)
    assert heard == [b"all of it"] and pipe.is_fifo()


@unix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_in_a_folder_that_takes_no_new_ones_is_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(b"old")
    tmp_path.chmod(0o500)
    try:
        write_whole(path, b"new")
    finally:
        tmp_path.chmod(0o700)
    assert path.read_bytes() == b"new"
