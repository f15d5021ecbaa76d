"""Two hundred hostile files: each is read, or refused with a DataError that names the right row."""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tuneahead.checkup import check
from tuneahead.dataset import ExampleFile, read_examples
from tuneahead.errors import DataError
from tuneahead.healthcard import print_checkup
from tuneahead.preflight import preflight
from tuneahead.recipe import Recipe
from tuneahead.report import render_html
from tuneahead.workbench import Setup, open_workbench

FILES = 200
SECONDS = 10.0
GOOD = {"prompt": "What is it?", "answer": "It is so."}


@dataclass(frozen=True)
class Hostile:
    """A file; ``row`` is where it must be refused, 0 for 'somewhere', -1 for 'must be read'."""

    name: str
    content: bytes
    row: int


def _broken_line(rng: random.Random) -> bytes:
    whole = json.dumps({**GOOD, "n": rng.randrange(100)})
    deep = rng.choice([100_000, 5_000])
    return rng.choice(
        [
            whole[: rng.randrange(2, len(whole) - 1)].encode(),
            whole.replace(":", "", 1).encode(),
            whole.replace('"', "'").encode(),
            whole.replace("100", "NaN").replace('"n": ', '"n": NaN, "m": ').encode(),
            whole.replace('"n"', '"prompt"').encode(),
            (whole + whole).encode(),
            (whole[:-1] + ",}").encode(),
            whole.replace("so", "s\x00o").encode(),
            whole.replace("so", "s\x1fo").encode(),
            whole.replace("so", "caf\xe9").encode("latin-1"),
            whole.replace("so", "\\ud800").encode(),
            whole.replace("so", "\\u12").encode(),
            whole.replace("so", "\\x41").encode(),
            b'{"prompt": ' + b"[" * deep,
            b'{"prompt": "p", "answer": ' + b'{"a":' * deep + b"1" + b"}" * (deep + 1),
            json.dumps({"prompt": ["p"], "answer": "a"}).encode(),
            json.dumps({"prompt": "p", "answer": {"text": "a"}}).encode(),
            json.dumps({"prompt": "p"}).encode(),
            json.dumps({"Prompt": "p", "Answer": "a"}).encode(),
            json.dumps({}).encode(),
            b"null",
            b"true",
            b'"prompt"',
            b"[]",
            b"12e999",
            b"-",
            b"\xff\xfe\xfd",
            b"\xc3(",
            b"\xed\xa0\x80",
        ]
    )


def _jsonl(rng: random.Random) -> Hostile:
    rows = [json.dumps(GOOD).encode()] * rng.randrange(2, 300)
    place = rng.randrange(1, len(rows))
    rows[place] = _broken_line(rng)
    end = rng.choice([b"\n", b"\r\n"])
    return Hostile("rows.jsonl", end.join(rows) + rng.choice([b"", end]), place + 1)


def _array(rng: random.Random) -> Hostile:
    rows = [json.dumps({**GOOD, "fill": "x" * rng.choice([0, 5_000])}).encode()] * rng.randrange(2, 300)
    place = rng.randrange(1, len(rows))
    rows[place] = _broken_line(rng)
    head, tail = rng.choice([(b"[", b"]"), (b'{"version": 1.5, "data": [', b"]}")])
    # An unclosed string or list swallows what follows, but it begins in the broken row.
    return Hostile("rows.json", head + b",\n".join(rows) + tail, place + 1)


def _table(rng: random.Random) -> Hostile:
    rows = [b"prompt,answer"] + [b'"What, is it?",so'] * rng.randrange(2, 200)
    place = rng.randrange(1, len(rows))
    rows[place] = rng.choice([b"a", b"a,b,c", b'"a"b,c', b'"a,b', b"a,caf\xe9", b'"a\nb"", c', b"\xff,a"])
    return Hostile("rows.csv", b"\n".join(rows) + b"\n", place + 1)


def _chat(rng: random.Random) -> Hostile:
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    bad: object = rng.choice(
        [
            {"messages": None},
            {"messages": "hi"},
            {"messages": [None]},
            {"messages": [["user", "u"]]},
            {"messages": [{"role": "user"}]},
            {"messages": [{"content": "u"}]},
            {"messages": [{"role": "alien", "content": "u"}]},
            {"messages": [{"role": 3, "content": "u"}]},
            {"messages": [{"role": None, "content": None}]},
            {"messages": [{"role": "user", "content": {"a": 1}}]},
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            {"messages": [{"role": "user", "content": [3]}]},
            {"messages": {"role": "user", "content": "u"}},
            {"conversations": turns},
        ]
    )
    rows: list[object] = [{"messages": turns}] * rng.randrange(3, 100)
    place = rng.randrange(1, len(rows))
    rows[place] = bad
    return Hostile("chat.jsonl", "\n".join(map(json.dumps, rows)).encode(), place + 1)


def _parquet(rng: random.Random) -> Hostile:
    out = io.BytesIO()
    kind = rng.randrange(4)
    if kind == 0:
        pq.write_table(pa.table({"prompt": ["p"] * 9, "answer": [b"\x01"] * 9}), out)
        return Hostile("rows.parquet", out.getvalue(), 1)
    pq.write_table(pa.table({"prompt": ["p", "q"] * 500, "answer": ["a", "b"] * 500}), out)
    whole = bytearray(out.getvalue())
    if kind == 1:
        return Hostile("rows.parquet", bytes(whole[: rng.randrange(4, len(whole))]), 0)
    if kind == 2:
        for _ in range(20):
            whole[rng.randrange(4, len(whole))] = rng.randrange(256)
        return Hostile("rows.parquet", bytes(whole), 0)
    return Hostile("rows.parquet", b"PAR1" + rng.randbytes(500) + b"PAR1", 0)


def _noise(rng: random.Random) -> Hostile:
    name = rng.choice(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.txt", "a", "a.xlsx"])
    content = rng.choice(
        [
            rng.randbytes(rng.randrange(1, 5_000)),
            b"\x00" * rng.randrange(1, 5_000),
            b"{" * rng.randrange(1, 200_000),
            b'{"a":' * rng.randrange(1, 100_000),
            b"[" * rng.randrange(1, 200_000),
            b'"' * rng.randrange(1, 5_000),
            b"\n" * rng.randrange(1, 100_000),
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"\xff\xfe" + json.dumps(GOOD).encode(),
            b"PK\x03\x04" + rng.randbytes(99),
            b"\x1f\x8b" + rng.randbytes(99),
            b'{"data": [' * rng.randrange(1, 1_000),
            b'{"data": {}, "rows": 3}',
            b"prompt,answer",
            b",,,,\n" * 50,
        ]
    )
    return Hostile(name, content, 0)


def _odd_but_sound(rng: random.Random) -> Hostile:
    rows = [
        {"prompt": "p" * rng.randrange(200_000), "answer": ""},
        {"prompt": "\u2028\x85\x0b", "answer": "\u0000"},
        {"prompt": "", "answer": None},
        {"prompt": "🙂" * 999, "answer": 10**4000},
        {"prompt": False, "answer": -0.0, "more": [[[[[]]]]]},
        {"prompt": "\ufeff", "answer": "\u202e", "": ""},
    ]
    rng.shuffle(rows)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = rng.choice(["\n", "\r\n", "\n\n"]).join(lines)
    encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16"])
    return Hostile("odd.jsonl", text.encode(encoding), -1)


MAKERS: tuple[Callable[[random.Random], Hostile], ...] = (
    _jsonl, _jsonl, _array, _array, _table, _chat, _parquet, _noise, _noise, _odd_but_sound
)  # fmt: skip


@pytest.fixture(scope="module")
def hostile_files() -> list[Hostile]:
    rng = random.Random(20_240_501)
    return [MAKERS[i % len(MAKERS)](rng) for i in range(FILES)]


@pytest.mark.parametrize("part", range(10))
def test_hostile_files_are_read_or_refused_where_they_are_broken(
    hostile_files: list[Hostile], part: int, tmp_path: Path
) -> None:
    for number, hostile in list(enumerate(hostile_files))[part::10]:
        path = tmp_path / str(number) / hostile.name
        path.parent.mkdir()
        path.write_bytes(hostile.content)
        where = f"file {number}: {hostile.content[:60]!r}"
        start = time.perf_counter()
        try:
            data = read_examples(path)
        except DataError as error:
            assert hostile.row >= 0, f"{where}: {error}"
            assert hostile.row in (0, error.row), f"{where}: row {hostile.row} expected, {error}"
            assert str(path) in str(error) and error.remedy and len(str(error)) < 1_500, where
        else:
            assert hostile.row <= 0, f"{where}: row {hostile.row} was read"
            preflight(data, Recipe())
        assert time.perf_counter() - start < SECONDS, where


def test_odd_but_sound_files_are_checked_whole(hostile_files: list[Hostile], tmp_path: Path) -> None:
    bench = open_workbench(Setup(), forecasts=False)
    for number, hostile in [(i, one) for i, one in enumerate(hostile_files) if one.row == -1][:4]:
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(hostile.content)
        found = check(path, bench=bench)
        print_checkup(Console(file=io.StringIO(), width=100), found)
        assert found.data.rows == 6 and "empty-answers" in {finding.check for finding in found.findings}
        assert render_html(found).endswith("</html>")


def test_a_line_of_50_mb_is_read_and_found(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    long = {**GOOD, "answer": "word " + "x1" * 26_000_000}
    path.write_text("\n".join(map(json.dumps, [GOOD, long, GOOD])))
    rows = {finding.check: finding.rows for finding in preflight(ExampleFile(path), Recipe())}
    assert rows["answer-lengths"] == (2,)
