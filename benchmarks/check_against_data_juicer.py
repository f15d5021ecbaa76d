"""Time of ``tuneahead check`` beside Data-Juicer on the same 100,000 rows, in one run on one machine.

Data-Juicer (py-data-juicer) pins other libraries than ours, so it lives in an environment of its own, whose
``bin`` folder is given. Timed are, each a process from start to end with two workers:

- ``dj-analyze`` with the eight statistics of text that need no downloaded model or word list: alphanumeric
  characters, average and longest line, repeated characters, special characters, length, repeated words,
  number of words;
- with --deduplication also ``dj-process`` with exact and MinHash deduplication (word triples, 64
  permutations, Jaccard 0.8), which takes minutes;
- ``tuneahead check`` with everything that it does: 23 checks, exact and near-duplicates, contradictions,
  contamination, tokens of the base, 67 static features; no kept result.

Writes benchmarks/results/check_against_data_juicer.json.

python benchmarks/check_against_data_juicer.py --data-juicer VENV/bin [--rows 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from check_speed import ROOT, write_rows

RESULT = ROOT / "benchmarks" / "results" / "check_against_data_juicer.json"
STATISTICS = (
    "alphanumeric_filter", "average_line_length_filter", "character_repetition_filter",
    "maximum_line_length_filter", "special_characters_filter", "text_length_filter",
    "word_repetition_filter", "words_num_filter",
)  # fmt: skip
DEDUPLICATION = """
  - document_deduplicator:
  - document_minhash_deduplicator:
      tokenization: space
      window_size: 3
      lowercase: true
      ignore_pattern: '\\p{P}'
      num_permutations: 64
      jaccard_threshold: 0.8
"""


def write_config(folder: Path, name: str, data: Path, steps: str) -> Path:
    """A configuration of Data-Juicer for one of its commands."""
    path = folder / f"{name}.yaml"
    path.write_text(
        f"project_name: {name}\ndataset_path: {data}\nexport_path: {folder / name / 'out.jsonl'}\n"
        f"np: 2\ntext_keys: text\nuse_cache: false\nprocess:{steps}",
        encoding="utf-8",
    )
    return path


def timed(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds on the clock and of the processors."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}


def main() -> None:
    """Make the rows, time all three, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-juicer", type=Path, metavar="BIN")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--deduplication", action="store_true")
    options = parser.parse_args()
    if options.data_juicer is None:
        print("nothing is compared: give the bin folder of an environment with py-data-juicer")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours, theirs = folder / "rows.jsonl", folder / "texts.jsonl"
        write_rows(ours, options.rows)
        with ours.open(encoding="utf-8") as rows, theirs.open("w", encoding="utf-8") as texts:
            for line in rows:
                row = json.loads(line)
                texts.write(json.dumps({"text": f"{row['prompt']} {row['completion']}"}) + "\n")
        statistics = "".join(f"\n  - {name}:" for name in STATISTICS) + "\n"
        analyze = write_config(folder, "analyze", theirs, statistics)
        process = write_config(folder, "process", theirs, DEDUPLICATION)
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        plain = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
        found = {
            "dj-analyze": timed([str(options.data_juicer / "dj-analyze"), "--config", str(analyze)], plain),
            "tuneahead check": timed(
                [
                    sys.executable,
                    "-m",
                    "tuneahead",
                    "check",
                    str(ours),
                    "--base",
                    "lab",
                    "--json",
                    "--no-cache",
                ],
                {**os.environ, "PYTHONPATH": path},
            ),
        }
        print(found, flush=True)
        if options.deduplication:
            command = [str(options.data_juicer / "dj-process"), "--config", str(process)]
            found["dj-process"] = timed(command, plain)
    version = subprocess.run(
        [str(options.data_juicer / "python"), "-c",
         "import importlib.metadata as m; print(m.version('py-data-juicer'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    result = {"rows": options.rows, "data_juicer": version, "cores": os.cpu_count(), "timings": found}
    print(json.dumps(result, indent=2))
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
