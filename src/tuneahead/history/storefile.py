"""The SQLite file of a history: opened, made where there is none, refused where it is another program's."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tuneahead.errors import StoreError

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
_CUT_SHORT = "the file is damaged or was cut short: put a copy of it back"


class StoreFile:
    """One file of runs; safe for several processes at once."""

    def __init__(self, path: str | Path) -> None:
        """Open a store, or make one in a new or empty file; raises :class:`StoreError` for any other file.

        A store that is there is only read, so that one on a read-only disk can be opened.
        """
        self.path = Path(path)
        self._opened = False
        if self.path.is_dir():
            raise StoreError(f"{path} is a folder, not a store of runs", remedy="name the SQLite file in it")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"can't create {self.path}: {error.strerror}", remedy="check the folder"
            ) from None
        with self._connect() as connection:
            tables = table_names(connection)
            if not tables:
                _create(connection)
            found = self._schema(connection, tables or _OWN)
        if found != str(SCHEMA):
            raise StoreError(
                f"{self.path} has schema {found}, this version reads {SCHEMA}",
                remedy="use the version of tuneahead that wrote it, or start a new store",
            )
        self._opened = True

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
            raise StoreError(f"history {self.path}: {error}", remedy=self._remedy(error)) from None
        finally:
            if connection is not None:
                connection.close()

    def _address(self) -> str:
        address = self.path.absolute().as_uri()
        beside = self.path.with_name(self.path.name + "-wal")
        # SQLite keeps files beside a store even to read it, unless told that nobody can write there.
        closed = self.path.is_file() and not beside.exists() and _nobody_writes(self.path)
        return f"{address}?immutable=1" if closed else address

    @property
    def rescue_command(self) -> str:
        """The command that brings what can be read into another store."""
        return f"tuneahead runs import {shlex.quote(str(self.path))} --store new.sqlite"

    def _remedy(self, error: sqlite3.Error) -> str:
        if is_damage(error) and not self._opened:
            # An import would have to open it too.
            return _CUT_SHORT
        if is_damage(error):
            return (
                "the file is damaged: put a copy of it back, or bring the runs that can be read into another "
                f"store: {self.rescue_command}"
            )
        if not os.access(self.path.parent, os.W_OK):
            if not self.path.exists():
                return "name a store in a folder that you can write to"
            return "copy the file to a folder of your own: others may write to it there, and you may not"
        return "check free disk space and that the file is a run store"


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the content of an SQLite file is wrong, or a text in it is none; not its place or its lock."""
    # Python itself raises the error of a text that is none, without a code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF == sqlite3.SQLITE_CORRUPT


def is_store(path: Path) -> bool:
    """Whether ``path`` is an SQLite file with the tables of a store.

    Raises :class:`StoreError` for one that is too damaged to tell.
    """
    if not path.is_file():
        return False
    # The second where SQLite may keep no files beside one, not even to read it.
    for how in ("mode=ro", "immutable=1"):
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)) as one:
                return table_names(one) >= _OWN
        except sqlite3.Error as error:
            if is_damage(error):
                raise StoreError(f"{path} can't be read: {error}", remedy=_CUT_SHORT) from None
    return False


def table_names(connection: sqlite3.Connection) -> set[str]:
    """Names of the tables (and indexes) of an SQLite file."""
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}


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
