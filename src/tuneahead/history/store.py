"""The history of runs: raw traces and scores in one SQLite file. A run is appended and never edited.

A run's true score may be added or replaced later (``record_score``), because a user's run is often
judged elsewhere; scores are rows of their own table. What should not be there is deleted (``forget``).
Every statement is plain SQL, so that another database can take SQLite's place.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tuneahead.errors import RecipeError, StoreError, TraceError, UnreadableRunError
from tuneahead.features.vector import FeatureVector
from tuneahead.history.runrecord import COLUMNS, RunRecord, run_record, run_row, score_rows

if TYPE_CHECKING:
    from tuneahead.predictor.table import FeatureTable

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, task_id TEXT NOT NULL, data_id TEXT NOT NULL, family TEXT NOT NULL,
    base TEXT NOT NULL, seed INTEGER NOT NULL, recipe TEXT NOT NULL, trace BLOB NOT NULL,
    data_spec TEXT NOT NULL, seconds REAL NOT NULL, steps INTEGER NOT NULL, failure TEXT NOT NULL,
    origin TEXT NOT NULL, created TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS runs_by_task ON runs (task_id);
CREATE TABLE IF NOT EXISTS scores (
    run_id TEXT NOT NULL, benchmark TEXT NOT NULL, subject TEXT NOT NULL, kind TEXT NOT NULL,
    score_pp REAL NOT NULL, created TEXT NOT NULL,
    PRIMARY KEY (run_id, benchmark, subject, kind)
);
CREATE TABLE IF NOT EXISTS statics (
    data_id TEXT NOT NULL, base TEXT NOT NULL, version TEXT NOT NULL, vector TEXT NOT NULL,
    PRIMARY KEY (data_id, base, version)
);
"""
_OWN = {"meta", "runs", "scores", "statics"}
_NEW = f"BEGIN IMMEDIATE; {_TABLES} INSERT OR IGNORE INTO meta VALUES ('schema', '{SCHEMA}'); COMMIT;"
"""One transaction: a process that opens the file meanwhile finds all of it or nothing."""
_CREATING_SECONDS = 30.0
_WRITABLE = 0o222
_MOST_SHOWN = 5


class RunStore:
    """A history in one file; safe for several processes at once.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(RunStore(Path(folder) / "runs.sqlite"))
    0
    """

    def __init__(self, path: str | Path) -> None:
        """Open a store, or make one in a new or empty file; raises :class:`StoreError` for any other file.

        A store that is there is only read, so that one on a read-only disk can be opened.
        """
        self.path = Path(path)
        if self.path.is_dir():
            raise StoreError(f"{path} is a folder, not a store of runs", remedy="name the SQLite file in it")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"can't create {self.path}: {error.strerror}", remedy="check the folder"
            ) from None
        with self._connect() as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if not tables:
                _create(connection)
            found = self._schema(connection, tables or _OWN)
        if found != str(SCHEMA):
            raise StoreError(
                f"{self.path} has schema {found}, this version reads {SCHEMA}",
                remedy="use the version of tuneahead that wrote it, or start a new store",
            )

    def require_writable(self) -> None:
        """Before any work whose results are to be kept: raises :class:`StoreError` where none can be.

        Waits up to a minute for another writer.
        """
        with self._connect() as connection:
            # To BEGIN IMMEDIATE alone SQLite says yes where it can only read.
            connection.execute("UPDATE meta SET value = value")
            connection.rollback()

    def _schema(self, connection: sqlite3.Connection, tables: set[str]) -> str:
        query = "SELECT value FROM meta WHERE key = 'schema'"
        row = connection.execute(query).fetchone() if tables >= _OWN else None
        if row is None:
            raise StoreError(
                f"{self.path} is an SQLite file of another program, not a history of runs",
                remedy="name another file with --store; a new one is made where there is none",
            )
        return str(row[0])

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        # One connection an operation: nothing is shared between threads or forked processes.
        connection = None
        try:
            connection = sqlite3.connect(self._address(), timeout=60, uri=True)
            with connection:
                yield connection
        except sqlite3.Error as error:
            raise StoreError(f"history {self.path}: {error}", remedy=self._remedy()) from None
        finally:
            if connection is not None:
                connection.close()

    def _address(self) -> str:
        address = self.path.absolute().as_uri()
        beside = self.path.with_name(self.path.name + "-wal")
        # SQLite keeps files beside a store even to read it, unless told that nobody can write there.
        closed = self.path.is_file() and not beside.exists() and _nobody_writes(self.path)
        return f"{address}?immutable=1" if closed else address

    def _remedy(self) -> str:
        if self.path.is_file() and not os.access(self.path.parent, os.W_OK):
            return "copy the file to a folder of your own: others may write to it there, and you may not"
        return "check free disk space and that the file is a run store"

    def __len__(self) -> int:
        with self._connect() as connection:
            return int(connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0])

    def add(self, record: RunRecord) -> bool:
        """Store a run and its scores in one transaction; False when ``run_id`` is there already.

        Scores that are not finite are absent ones and left out.
        """
        now = record.created or datetime.now(UTC).isoformat(timespec="seconds")
        row = run_row(record, now)
        with self._connect() as connection:
            marks = ", ".join("?" * len(row))
            # OR IGNORE would drop a row of any other fault without a word.
            done = connection.execute(
                f"INSERT INTO runs ({COLUMNS}) VALUES ({marks}) ON CONFLICT (run_id) DO NOTHING", row
            )
            if done.rowcount == 0:
                return False
            connection.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?)", score_rows(record, now)
            )
        return True

    def done_ids(self) -> set[str]:
        """Identifiers of every stored run."""
        return set(self.run_ids())

    def get(self, run_id: str) -> RunRecord:
        """One run; raises :class:`StoreError` when there is none of that name or it can't be read."""
        for record in self.records([run_id]):
            return record
        raise self._no_run(run_id)

    def _no_run(self, run_id: str) -> StoreError:
        return StoreError(
            f"no run {run_id!r} in {self.path}", remedy="list the runs with: tuneahead runs list"
        )

    def run_ids(self) -> list[str]:
        """Identifiers of all runs in the order they were stored."""
        with self._connect() as connection:
            return [str(row[0]) for row in connection.execute("SELECT run_id FROM runs ORDER BY rowid")]

    def records(self, run_ids: Sequence[str] | None = None) -> Iterator[RunRecord]:
        """All runs in the order they were stored, or those named.

        Raises :class:`UnreadableRunError` at the first that can't be read.
        """
        wanted = self.run_ids() if run_ids is None else run_ids
        with self._connect() as connection:
            for run_id in wanted:
                row = connection.execute(f"SELECT {COLUMNS} FROM runs WHERE run_id = ?", (run_id,)).fetchone()
                if row is not None:
                    scores = connection.execute(
                        "SELECT benchmark, subject, kind, score_pp FROM scores WHERE run_id = ?", (run_id,)
                    ).fetchall()
                    yield self._record(run_id, row, scores)

    def _record(
        self, run_id: str, row: Sequence[object], scores: Sequence[tuple[str, str, str, float]]
    ) -> RunRecord:
        try:
            return run_record(row, scores)
        except (TraceError, RecipeError, ValueError, RecursionError) as error:
            why = error.message if isinstance(error, (TraceError, RecipeError)) else str(error)
            raise UnreadableRunError(
                f"run {run_id!r} in {self.path} can't be read: {why}",
                run_id=run_id,
                remedy="use the version of tuneahead that wrote it, or delete it: "
                f"tuneahead runs forget {shlex.quote(run_id)} --store {shlex.quote(str(self.path))}",
            ) from None

    def record_score(self, run_id: str, benchmark: str, score_pp: float) -> None:
        """Add or replace the true score of a run that is in the store, in percentage points (0 to 100)."""
        if not math.isfinite(score_pp):
            raise StoreError(
                f"the score of run {run_id!r} on {benchmark!r} is {score_pp}, not a number",
                remedy="leave a score that was not measured out; the run stays in the history without it",
            )
        if not 0 <= score_pp <= 100:
            raise StoreError(
                f"score {score_pp} is outside 0 to 100", remedy="give percentage points, such as 61.2"
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._connect() as connection:
            if connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone() is None:
                raise self._no_run(run_id)
            connection.execute(
                "INSERT OR REPLACE INTO scores VALUES (?, ?, '', 'final', ?, ?)",
                (run_id, benchmark, score_pp, now),
            )

    def find_id(self, begin: str) -> str:
        """The identifier that is ``begin`` or, alone in the store, begins with it."""
        with self._connect() as connection:
            query = "SELECT run_id FROM runs WHERE substr(run_id, 1, ?) = ? ORDER BY run_id"
            found = [str(row[0]) for row in connection.execute(query, (len(begin), begin))] if begin else []
        if begin in found or len(found) == 1:
            return begin if begin in found else found[0]
        if not found:
            raise self._no_run(begin)
        shown = ", ".join(found[:_MOST_SHOWN]) + (", ..." if len(found) > _MOST_SHOWN else "")
        raise StoreError(
            f"{len(found):,} runs in {self.path} begin with {begin!r}: {shown}",
            remedy="give more of the id",
        )

    def benchmarks(self) -> tuple[str, ...]:
        """Names of the benchmarks that any run or base in the store has a score on, sorted."""
        with self._connect() as connection:
            rows = connection.execute("SELECT DISTINCT benchmark FROM scores ORDER BY 1").fetchall()
        return tuple(str(row[0]) for row in rows)

    def forget(self, run_id: str, benchmark: str = "") -> float | None:
        """Delete a run with its scores, or only its final score on ``benchmark``; returns that score.

        A run that can't be read is deleted like any other. Static features stay: they are of the data set.
        Raises :class:`StoreError` when there is nothing of that name.
        """
        with self._connect() as connection:
            if connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone() is None:
                raise self._no_run(run_id)
            if not benchmark:
                connection.execute("DELETE FROM scores WHERE run_id = ?", (run_id,))
                connection.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
                return None
            where, names = "run_id = ? AND benchmark = ? AND kind = 'final'", (run_id, benchmark)
            query = f"SELECT score_pp FROM scores WHERE {where} AND subject = ''"
            row = connection.execute(query, names).fetchone()
            if row is None:
                raise StoreError(
                    f"run {run_id!r} has no score on {benchmark!r}",
                    remedy=f"see: tuneahead runs show {run_id}",
                )
            connection.execute(f"DELETE FROM scores WHERE {where}", names)
        return float(row[0])

    def table(self, *, benchmark: str = "lab-exam", probe_steps: int = 100) -> FeatureTable:
        """The table a predictor learns from; see :func:`tuneahead.history.tables.table_from_store`."""
        from tuneahead.history.tables import table_from_store

        return table_from_store(self, benchmark=benchmark, probe_steps=probe_steps)

    def add_static(self, data_id: str, base: str, version: str, vector: FeatureVector) -> None:
        """Keep a data set's static features; they depend on data, base and catalogue version only."""
        text = json.dumps({"values": dict(vector.values), "absent": dict(vector.absent)})
        with self._connect() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO statics VALUES (?, ?, ?, ?)", (data_id, base, version, text)
            )

    def static(self, data_id: str, base: str, version: str) -> FeatureVector | None:
        """Static features kept earlier, or None."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT vector FROM statics WHERE data_id = ? AND base = ? AND version = ?",
                (data_id, base, version),
            ).fetchone()
        if row is None:
            return None
        loaded = json.loads(row[0])
        return FeatureVector(loaded["values"], loaded["absent"])

    def statics(self, data_ids: Collection[str]) -> list[tuple[str, str, str, FeatureVector]]:
        """All that is kept of these data sets: identifier, base, version and features, in a fixed order."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT data_id, base, version FROM statics ORDER BY 1, 2, 3"
            ).fetchall()
        keys = [(str(data_id), str(base), str(version)) for data_id, base, version in rows]
        found = [(key, self.static(*key)) for key in keys if key[0] in data_ids]
        return [(*key, vector) for key, vector in found if vector is not None]


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables, while other processes may be at the same."""
    deadline = time.monotonic() + _CREATING_SECONDS
    while True:
        try:
            # The switch to WAL does not wait for its turn, whatever the connection's timeout.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_NEW)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _nobody_writes(path: Path) -> bool:
    """Whether neither this process nor any other can write to the file or beside it."""
    if os.access(path.parent, os.W_OK):
        return False
    # Windows has no statvfs.
    if hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY:
        return True
    return not (path.stat().st_mode | path.parent.stat().st_mode) & _WRITABLE
