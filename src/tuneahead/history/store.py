"""The history of runs: raw traces and scores in one SQLite file. A run is appended and never edited.

A run's true score may be added or replaced later (``record_score``), because a user's run is often
judged elsewhere; scores are rows of their own table. What should not be there is deleted (``forget``).
Every statement is plain SQL, so that another database can take SQLite's place.
"""

from __future__ import annotations

import json
import math
import shlex
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tuneahead.errors import RecipeError, StoreError, TraceError, UnreadableRunError
from tuneahead.features.vector import FeatureVector
from tuneahead.history.runrecord import COLUMNS, RunRecord, run_record, run_row, score_rows
from tuneahead.history.storefile import StoreFile, is_damage

if TYPE_CHECKING:
    from tuneahead.predictor.table import FeatureTable

_MOST_SHOWN = 5


class RunStore(StoreFile):
    """A history in one file; safe for several processes at once.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(RunStore(Path(folder) / "runs.sqlite"))
    0
    """

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
            f"no run {run_id!r} in {self.path}", remedy=f"list the runs with: {self.command('list')}"
        )

    def command(self, what: str) -> str:
        """A command of ``tuneahead runs`` on this store, as a remedy names it."""
        return f"tuneahead runs {what} --store {shlex.quote(str(self.path))}"

    def run_ids(self) -> list[str]:
        """Identifiers of all runs in the order they were stored."""
        with self._connect() as connection:
            return [str(row[0]) for row in connection.execute("SELECT run_id FROM runs ORDER BY rowid")]

    def bases(self) -> tuple[str, ...]:
        """Names of the bases that any run in the store is on, sorted."""
        with self._connect() as connection:
            rows = connection.execute("SELECT DISTINCT base FROM runs ORDER BY 1").fetchall()
        return tuple(str(row[0]) for row in rows)

    def generated(self) -> list[tuple[str, str, str]]:
        """Data sets of runs that say how their rows were made: base, identifier and spec, as first stored."""
        query = (
            "SELECT base, data_id, data_spec FROM runs WHERE data_spec != '' GROUP BY base, data_id "
            "ORDER BY MIN(rowid)"
        )
        with self._connect() as connection:
            rows = connection.execute(query).fetchall()
        return [(str(base), str(data_id), str(spec)) for base, data_id, spec in rows]

    def last_of_base(self, base: str, *, before: str) -> RunRecord | None:
        """The run on a base of this name that was stored last, the run ``before`` apart; None without one.

        Raises as :meth:`get` does.
        """
        query = "SELECT run_id FROM runs WHERE base = ? AND run_id != ? ORDER BY rowid DESC LIMIT 1"
        with self._connect() as connection:
            row = connection.execute(query, (base, before)).fetchone()
        return None if row is None else self.get(str(row[0]))

    def records(self, run_ids: Sequence[str] | None = None) -> Iterator[RunRecord]:
        """All runs in the order they were stored, or those named.

        Raises :class:`UnreadableRunError` at the first that can't be read.
        """
        wanted = self.run_ids() if run_ids is None else run_ids
        with self._connect() as connection:
            for run_id in wanted:
                record = self._record(connection, run_id)
                if record is not None:
                    yield record

    def _record(self, connection: sqlite3.Connection, run_id: str) -> RunRecord | None:
        try:
            row = connection.execute(f"SELECT {COLUMNS} FROM runs WHERE run_id = ?", (run_id,)).fetchone()
            if row is None:
                return None
            scores = connection.execute(
                "SELECT benchmark, subject, kind, score_pp FROM scores WHERE run_id = ?", (run_id,)
            ).fetchall()
            return run_record(row, scores)
        except (TraceError, RecipeError, ValueError, RecursionError, sqlite3.Error) as error:
            # A file that is locked or can't be reached is no fault of this run.
            if isinstance(error, sqlite3.Error) and not is_damage(error):
                raise
            why = error.message if isinstance(error, (TraceError, RecipeError)) else str(error)
            raise UnreadableRunError(
                f"run {run_id!r} in {self.path} can't be read: {why}",
                run_id=run_id,
                remedy="use the version of tuneahead that wrote it, or delete it: "
                + self.command(f"forget {shlex.quote(run_id)}"),
            ) from None

    def record_score(self, run_id: str, benchmark: str, score_pp: float) -> None:
        """Add or replace the true score of a run that is in the store, in percentage points (0 to 100).

        Raises :class:`StoreError` for any other score, and where there is no such run.
        """
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
        """The identifier that is ``begin`` or, alone in the store, begins with it.

        Raises :class:`StoreError` when none or several do.
        """
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
                    remedy=f"see: {self.command(f'show {shlex.quote(run_id)}')}",
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
        """Static features kept earlier, or None; raises :class:`StoreError` where they can't be read."""
        with self._connect() as connection:
            row = connection.execute(
                "SELECT vector FROM statics WHERE data_id = ? AND base = ? AND version = ?",
                (data_id, base, version),
            ).fetchone()
        if row is None:
            return None
        try:
            loaded = json.loads(row[0])
            return FeatureVector(loaded["values"], loaded["absent"])
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise StoreError(
                f"the features of data set {data_id} ({version}) in {self.path} can't be read: {error!r:.80}",
                remedy="assess that data again, which measures them anew, or bring what can be read into "
                f"another store: {self.rescue_command}",
            ) from None

    def static_keys(self, data_ids: Collection[str]) -> list[tuple[str, str, str]]:
        """What is kept of these data sets: identifier, base and version, in a fixed order."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT data_id, base, version FROM statics ORDER BY 1, 2, 3"
            ).fetchall()
        return [(str(name), str(base), str(version)) for name, base, version in rows if str(name) in data_ids]

    def statics(self, data_ids: Collection[str]) -> list[tuple[str, str, str, FeatureVector]]:
        """All that is kept of these data sets: identifier, base, version and features, in a fixed order."""
        found = [(key, self.static(*key)) for key in self.static_keys(data_ids)]
        return [(*key, vector) for key, vector in found if vector is not None]
