"""Task files of lm-evaluation-harness over local rows, and what the harness itself finds on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuneahead.lab.exam import lab_exam
from tuneahead.training.models import Base

_CHOICES = """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true},
  {metric: acc_norm, aggregation: mean, higher_is_better: true}]
"""
_EXAMPLES = """
fewshot_split: test
num_fewshot: 2
"""
_TRUTH = """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{mc2_targets.choices}}"
doc_to_target: 0
process_results: !function rules.process_results_mc2
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
_WRITTEN = """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false}
filter_list:
  - name: first-word
    filter: [{function: regex, regex_pattern: "([A-Za-z0-9]+)"}, {function: take_first}]
  - name: as-it-is
    filter: [{function: remove_whitespace}, {function: take_first}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}]
"""


def write_tasks(folder: Path, count: int = 24) -> dict[str, Path]:
    """Tasks named choices, examples (in the prompt), truth and written over questions of the lab's exam."""
    items = lab_exam().items
    rows = []
    for item in items[:: len(items) // count][:count]:
        labels = [int(i in (item.gold[0], (item.gold[0] + 1) % 4)) for i in range(4)]
        truth = {"choices": list(item.options), "labels": labels}
        rows.append(
            {
                "question": item.prompt,
                "choices": list(item.options),
                "answer": item.gold[0],
                "mc2_targets": truth,
            }
        )
    data = folder / "rows.json"
    data.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    (folder / "rules.py").write_text("from lm_eval.tasks.truthfulqa.utils import process_results_mc2\n")
    kinds = {
        "choices": _CHOICES,
        "examples": _EXAMPLES + _CHOICES,
        "truth": _TRUTH,
        "written": _EXAMPLES + _WRITTEN,
    }
    return {name: write_task(folder, name, body, data) for name, body in kinds.items()}


def write_task(folder: Path, name: str, body: str, data: Path) -> Path:
    """One task file over a local data file."""
    path = folder / f"{name}.yaml"
    rows = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
    head = f"task: {name}\n{rows}"
    path.write_text(head + body, encoding="utf-8")
    return path


def harness_samples(base: Base, folder: Path, tasks: list[str]) -> dict[str, list[dict[str, Any]]]:
    """What the harness logs of every item when it runs by itself."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    model = HFLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=8)
    found = simple_evaluate(model, tasks=tasks, task_manager=manager, bootstrap_iters=0, log_samples=True)
    samples: dict[str, list[dict[str, Any]]] = found["samples"]
    return samples
