"""Tasks of lm-evaluation-harness by name, as benchmarks.

Multiple-choice tasks become items of ours: the scorer then shares a question's work among its options
and between adapters, and finds what the harness finds (``acc``, ``acc_norm``, TruthfulQA's MC2). Every
other task (written answers with filters, options inside the prompt, metrics of its own) is scored by
the harness itself on our model, with the adapter in place: its rules are its own.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from tuneahead.benchmark.items import Asking, Benchmark, ChoiceItem, GenerationItem, Metric
from tuneahead.errors import BenchmarkError

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

_OWN: Mapping[str, Metric] = {"acc": "accuracy", "acc_norm": "acc_norm"}
FEWSHOT_SEED = 1234
"""With which the harness itself draws the examples in a prompt, unless told otherwise."""
_TASK_ERRORS = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError, StopIteration),
    TemplateError,
)
"""What a task's file, its data and its code may raise: they are written by hand."""
_INSTALL = "install it: pip install 'tuneahead[lm-eval]'"


@dataclass(frozen=True)
class HarnessTasks:
    """Loaded tasks by name, and the metric (with the answer filter) that counts."""

    tasks: Mapping[str, ConfigurableTask]
    metric: str
    filter: str

    def grade(self, model: Any, item_ids: Sequence[str]) -> dict[str, float]:
        """Grade of each item, 0 to 1, as the harness gives it to its model wrapper ``model``.

        Raises :class:`BenchmarkError` when the metric is no such number, or the harness fails.
        """
        from lm_eval.evaluator import evaluate

        samples: dict[str, list[int]] = {}
        for item_id in item_ids:
            task, _, number = item_id.rpartition(":")
            samples.setdefault(task, []).append(int(number))
        chosen = {"tasks": {name: self.tasks[name] for name in samples}, "groups": {}, "group_map": {}}
        for name in samples:
            # Each scoring draws the few-shot examples anew: they must be the same ones.
            self.tasks[name].set_fewshot_seed(FEWSHOT_SEED)
        try:
            with _quiet():
                found = evaluate(model, chosen, samples=samples, bootstrap_iters=0)
        except (ValueError, LookupError, TypeError, AttributeError, ImportError, ZeroDivisionError) as error:
            raise BenchmarkError(
                f"lm-evaluation-harness fails on {', '.join(samples)}: {_first_line(error)}",
                remedy="see whether 'lm_eval' scores the task, and check its filters and metrics",
            ) from error
        return {
            f"{task}:{sample['doc_id']}": self._number(task, sample.get(self.metric))
            for task, own in found["samples"].items()
            for sample in own
            if sample["filter"] == self.filter
        }

    def _number(self, task: str, value: object) -> float:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = -1.0
        if not 0.0 <= number <= 1.0:
            raise BenchmarkError(
                f"metric {self.metric!r} of task {task!r} gave {value!r} for an item, no number from 0 to 1",
                remedy="choose a metric that scores single items, as in TASK:acc or TASK:exact_match",
            )
        return number


def installed() -> bool:
    """Whether lm-evaluation-harness can be imported."""
    return importlib.util.find_spec("lm_eval") is not None


def harness_benchmark(name: str, metric: str = "") -> Benchmark:
    """The task (or group, such as ``mmlu``) ``name`` of the harness, or that of a YAML file.

    ``metric`` is one of the task's own, with an answer filter where it has several
    (``exact_match,flexible-extract``); default is its first. The data come from where the task says,
    mostly the Hugging Face hub. The score is the mean over all items, which is how the harness weighs
    ``mmlu``. Raises :class:`BenchmarkError` for an unknown task or metric and for data that can't be had.
    """
    if not installed():
        raise BenchmarkError(f"benchmark {name!r} needs lm-evaluation-harness", remedy=_INSTALL)
    shown, tasks = _load(name)
    first = next(iter(tasks.values()))
    chosen, answer_filter = _metric(shown, first, metric)
    for task in tasks.values():
        _build(task)
    label = f"{shown}:{metric}" if metric else shown
    own = _own_items(tasks, chosen)
    if own is not None:
        kind, items, delimiter = own
        asking = Asking("raw", joined=True, delimiter=delimiter)
        return Benchmark(label, kind, items, asking, known_by_name=True)
    harness = HarnessTasks(tasks, chosen, answer_filter)
    asked = [item for task_name, task in tasks.items() for item in _shown_items(task_name, task)]
    return Benchmark(label, "harness", asked, Asking("raw"), harness, known_by_name=True)  # type: ignore[arg-type]


def _load(name: str) -> tuple[str, dict[str, ConfigurableTask]]:
    """The name shown, and the loaded tasks by name."""
    with _quiet():
        from lm_eval.tasks import TaskManager

        path = Path(name)
        is_file = path.suffix in (".yaml", ".yml")
        task = _task_of(path) if is_file else name
        manager = TaskManager(
            include_path=str(path.parent) if is_file else None, include_defaults=not is_file
        )
        if task not in manager.all_tasks:
            raise _unknown(name, task, manager.all_tasks)
        try:
            return task, dict(manager.load(task)["tasks"])
        except _TASK_ERRORS as error:
            raise BenchmarkError(
                f"can't load task {task!r}: {_first_line(error)}",
                remedy="check that this machine reaches the Hugging Face hub or has the data set in its "
                "cache, and what the task's file says",
            ) from None


def _task_of(path: Path) -> str:
    """The task, or the group of tasks, that a file names."""
    import yaml

    remedy = "give a task file of lm-evaluation-harness"
    try:
        # Tasks name functions as !function; only names are wanted here, and nothing is constructed.
        whole = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BenchmarkError(f"can't read task file {path}: {_first_line(error)}", remedy=remedy) from None
    top = {key.value: value for key, value in whole.value} if isinstance(whole, yaml.MappingNode) else {}
    name = top.get("group" if isinstance(top.get("task"), yaml.SequenceNode) else "task")
    if not isinstance(name, yaml.ScalarNode):
        raise BenchmarkError(f"{path} has no 'task:'", remedy=remedy)
    return str(name.value)


def _unknown(name: str, task: str, known: Sequence[str]) -> BenchmarkError:
    near = difflib.get_close_matches(task, known, n=4, cutoff=0.6)
    return BenchmarkError(
        f"unknown benchmark {name!r}: lm-evaluation-harness knows no such task",
        remedy=(f"did you mean {', '.join(near)}? " if near else "")
        + "use lab-exam, lab-truth, lab-generation, a file of items, or a task that 'lm_eval ls tasks' lists",
    )


def _metric(shown: str, task: ConfigurableTask, wanted: str) -> tuple[str, str]:
    """Name of the metric that counts, and of its answer filter."""
    metrics = [name for name, up in task.higher_is_better().items() if up]
    filters = [ensemble.name for ensemble in task._filters] or ["none"]
    name, _, answer_filter = (wanted or (metrics or [""])[0]).partition(",")
    answer_filter = answer_filter or filters[0]
    if name not in metrics or answer_filter not in filters:
        listed = [f"{m},{f}" if len(filters) > 1 else m for m in metrics for f in filters]
        raise BenchmarkError(
            f"task {shown!r} has no metric {f'{wanted!r} ' if wanted else ''}that is better when higher",
            remedy=f"use one of: {', '.join(f'{shown}:{one}' for one in listed)}"
            if listed
            else "take another task",
        )
    return name, answer_filter


def _build(task: ConfigurableTask) -> None:
    try:
        with _quiet():
            task.set_fewshot_seed(FEWSHOT_SEED)
            task.build_all_requests(rank=0, world_size=1)
            answerable = _has_targets(task)
    except _TASK_ERRORS as error:
        raise BenchmarkError(
            f"the rows of task {task.config.task!r} don't fit its file: {_first_line(error)}",
            remedy="check the task's doc_to_text, doc_to_choice and doc_to_target against its data",
        ) from None
    if not answerable:
        raise BenchmarkError(
            f"no document of task {task.config.task!r} has a target that is one of its options",
            remedy="check doc_to_target, which names an option or its place from 0 on, and whether this "
            "split of the data has answers",
        )


def _has_targets(task: ConfigurableTask) -> bool:
    """Whether a right answer exists at all; the harness scores documents without one 0."""
    own_rule = task.OUTPUT_TYPE != "multiple_choice" or task.multiple_input or task.config.process_results
    return bool(own_rule) or any(
        _gold(task, doc, [str(choice) for choice in task.doc_to_choice(doc)], "accuracy")
        for doc, _, _ in _documents(task)
    )


def _own_items(
    tasks: Mapping[str, ConfigurableTask], metric: str
) -> tuple[Metric, list[ChoiceItem], str] | None:
    """Items that our scorer scores as the harness does; None when it must do so itself."""
    kinds = {_own_kind(task, metric) for task in tasks.values()}
    delimiters = {str(task.config.target_delimiter) for task in tasks.values()}
    kind = kinds.pop()
    if kind is None or kinds or len(delimiters) > 1:
        return None
    items = []
    for name, task in tasks.items():
        for number, (doc, contexts, _) in enumerate(_documents(task)):
            options = tuple(str(choice) for choice in task.doc_to_choice(doc))
            gold = _gold(task, doc, options, kind)
            if len(set(contexts)) > 1 or not contexts[0].strip() or not all(options) or not gold:
                return None
            _require_question(name, number, options, gold)
            subject = name if len(tasks) > 1 else ""
            question = _question(task, doc)
            items.append(ChoiceItem(f"{name}:{number}", contexts[0], options, gold, subject, question))
    return kind, items, delimiters.pop()


def _own_kind(task: ConfigurableTask, metric: str) -> Metric | None:
    """Our name of the task's metric when its items and rules are the plain ones."""
    plain = [ensemble.name for ensemble in task._filters] in ([], ["none"])
    if task.OUTPUT_TYPE != "multiple_choice" or not plain or task.multiple_input:
        return None
    if "acc_mutual_info" in task.higher_is_better():
        return None
    rule = task.config.process_results
    if rule is None:
        return _OWN.get(metric)
    return "mc2" if getattr(rule, "__name__", "") == "process_results_mc2" and metric == "acc" else None


def _gold(task: ConfigurableTask, doc: Any, options: Sequence[str], kind: Metric) -> tuple[int, ...]:
    """Places of the right options; empty when the document names none that exists."""
    if kind == "mc2":
        return tuple(i for i, label in enumerate(doc["mc2_targets"]["labels"]) if label == 1)
    found = task.doc_to_target(doc)
    places = []
    for one in found if isinstance(found, list) else [found]:
        place = options.index(one) if isinstance(one, str) and one in options else one
        if not isinstance(place, int) or not 0 <= place < len(options):
            return ()
        places.append(place)
    return tuple(sorted(set(places)))


def _require_question(name: str, number: int, options: Sequence[str], gold: Sequence[int]) -> None:
    if len(options) < 2 or len(gold) == len(options):
        what = f"{len(options)} option" if len(options) < 2 else "no wrong option"
        raise BenchmarkError(
            f"task {name!r}, document {number} has {what}: it can't be answered wrongly",
            remedy="leave such documents out of the task's data",
        )


def _documents(task: ConfigurableTask) -> Iterator[tuple[Any, list[str], list[str]]]:
    """Each document with the contexts and continuations that it is asked with."""
    grouped: dict[int, list[Any]] = {}
    for instance in task.instances:
        grouped.setdefault(instance.doc_id, []).append(instance)
    for _, own in sorted(grouped.items()):
        asked = sorted(own, key=lambda instance: int(instance.idx))
        yield (
            asked[0].doc,
            [str(one.args[0]) for one in asked],
            [str(one.args[1]) for one in asked if len(one.args) > 1 and isinstance(one.args[1], str)],
        )


def _shown_items(name: str, task: ConfigurableTask) -> Iterator[ChoiceItem | GenerationItem]:
    """What the model is asked, for checks of the data against it; the harness does the scoring."""
    for number, (doc, contexts, continuations) in enumerate(_documents(task)):
        item_id = f"{name}:{number}"
        if task.OUTPUT_TYPE == "multiple_choice":
            options = contexts if len(set(contexts)) > 1 else continuations
            gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
            place = gold if isinstance(gold, int) else 0
            yield ChoiceItem(item_id, contexts[0], tuple(options), (place,), name, _question(task, doc))
            continue
        target = task.doc_to_target(doc)
        answers = [target] if isinstance(target, str) or not isinstance(target, list) else target
        texts = tuple(text if isinstance(text, str) else json.dumps(text, default=str) for text in answers)
        yield GenerationItem(item_id, contexts[0], texts, name, _question(task, doc))


def _question(task: ConfigurableTask, doc: Any) -> str:
    """What the document itself asks, without the examples before it; empty where each option asks its own."""
    asked = task.doc_to_text(doc)
    return asked if isinstance(asked, str) else ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The harness and the data sets library draw bars and log on stderr, where our own bar is."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "huggingface_hub", "httpx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
