"""Time of scoring multiple-choice questions against lm-evaluation-harness, same items, model and machine.

    python benchmarks/scoring_speed.py [--bases lab,smollm2] [--items 200]

Comparisons of bases that are not named are kept as they are in the result.

The lab's exam as a task of the harness: without examples in the prompt, with five drawn for every question,
and with the same five for all (as MMLU's subjects have them). Ours: tokenising
and scoring (``score_benchmark``); the harness: its Hugging Face wrapper's ``loglikelihood`` on the task's
requests, with the fastest of several batch sizes. Times are processor time on one thread, which neighbours
on a busy machine change little. Rounds alternate; every item's score must be the same.
Writes benchmarks/results/scoring_speed.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tuneahead.benchmark.items import Benchmark
from tuneahead.benchmark.lm_eval import FEWSHOT_SEED, harness_benchmark
from tuneahead.lab.exam import lab_exam
from tuneahead.training.models import Base, load_base
from tuneahead.training.scoring import score_benchmark

BATCH_SIZES = (8, 32, 128)
TRIAL_ITEMS = 4
ROUNDS = 3
KINDS = ((0, "default"), (5, "default"), (5, "first_n"))
"""Examples in the prompt, and how the harness draws them."""
RESULT = Path(__file__).parent / "results" / "scoring_speed.json"
_TASK = """task: exam{shots}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}, train: {examples}}}}}
test_split: test
fewshot_split: train
num_fewshot: {shots}
fewshot_config: {{sampler: {sampler}}}
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def write_task(folder: Path, items: int, shots: int, sampler: str) -> Path:
    """The exam as a task file over local rows; examples come from questions that are not asked."""
    exam = lab_exam().items
    chosen = exam[:: max(1, len(exam) // items)][:items]
    rest = [item for item in exam if item not in chosen][:50] or list(exam[:50])
    for name, part in (("rows", chosen), ("examples", rest)):
        lines = [
            json.dumps({"question": i.prompt, "choices": list(i.options), "answer": i.gold[0]}) for i in part
        ]
        (folder / f"{name}.json").write_text("\n".join(lines), encoding="utf-8")
    path = folder / f"exam{shots}.yaml"
    files = {"rows": folder / "rows.json", "examples": folder / "examples.json"}
    text = _TASK.format(shots=shots, sampler=sampler, **files)
    path.write_text(text, encoding="utf-8")
    return path


def our_seconds(base: Base, benchmark: Benchmark) -> tuple[float, list[float]]:
    """Processor seconds of one scoring, and each item's score."""
    began = time.process_time()
    score = score_benchmark(base, benchmark)
    return time.process_time() - began, score.item_pp.tolist()


def harness_seconds(model: Any, task: Any, instances: list[Any]) -> tuple[float, list[float]]:
    """The same for the harness on some of the task's requests."""
    began = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):
        found = model.loglikelihood(instances, disable_tqdm=True)
    seconds = time.process_time() - began
    by_item: dict[int, list[float]] = {}
    for instance, (logprob, _) in zip(instances, found, strict=True):
        by_item.setdefault(instance.doc_id, []).append(logprob)
    docs = dict(task.doc_iterator())
    right = [float(own.index(max(own)) == docs[i]["answer"]) for i, own in sorted(by_item.items())]
    return seconds, [100 * one for one in right]


def compare(base: Base, items: int, shots: int, sampler: str) -> dict[str, object]:
    """One base and one kind of prompt."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        path = write_task(Path(name), items, shots, sampler)
        benchmark = harness_benchmark(str(path))
        task = TaskManager(include_path=name, include_defaults=False).load(path.stem)["tasks"][path.stem]
        task.set_fewshot_seed(FEWSHOT_SEED)
        task.build_all_requests(rank=0, world_size=1)
        models = {n: HFLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=n) for n in BATCH_SIZES}
        first = task.instances[: TRIAL_ITEMS * len(task.instances) // len(benchmark.items)]
        trial = {n: harness_seconds(model, task, first)[0] for n, model in models.items()}
        best = min(trial, key=lambda n: trial[n])
        our_seconds(base, benchmark)
        rounds = [
            (our_seconds(base, benchmark), harness_seconds(models[best], task, task.instances))
            for _ in range(ROUNDS)
        ]
    same = [
        ours == theirs
        for (_, ours_pp), (_, theirs_pp) in rounds
        for ours, theirs in zip(ours_pp, theirs_pp, strict=True)
    ]
    ours, theirs = median(a for (a, _), _ in rounds), median(b for _, (b, _) in rounds)
    return {
        "base": base.name,
        "dtype": str(base.dtype),
        "examples_in_prompt": shots,
        "examples_are": "none" if not shots else "the same for all" if sampler == "first_n" else "drawn anew",
        "items": len(benchmark.items),
        "ours_seconds": round(ours, 3),
        "harness_seconds": round(theirs, 3),
        "harness_batch_size": best,
        "times_faster": round(median(b / a for (a, _), (b, _) in rounds), 2),
        "equal_items_fraction": round(sum(same) / len(same), 4),
    }


def main() -> None:
    """Measure every base with every kind of prompt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", default="lab,smollm2")
    parser.add_argument("--items", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.bases.split(","):
        base = load_base(name, device="cpu")
        for shots, sampler in KINDS:
            own = compare(base, options.items, shots, sampler)
            keep(own)
            print(f"{name}, {shots} examples: {own['times_faster']} x the harness's speed, {own}")


def keep(own: dict[str, object]) -> None:
    """Write one comparison in the place of an earlier one of its kind."""
    RESULT.parent.mkdir(exist_ok=True)
    before = json.loads(RESULT.read_text(encoding="utf-8"))["comparisons"] if RESULT.exists() else []
    by_kind = {
        (str(one["base"]), int(str(one["examples_in_prompt"])), str(one["examples_are"])): one
        for one in (*before, own)
    }
    result = {
        "clock": "processor time on one thread",
        "rounds": ROUNDS,
        "comparisons": [by_kind[kind] for kind in sorted(by_kind)],
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
