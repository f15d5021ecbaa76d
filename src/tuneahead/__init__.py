"""Know how a fine-tune will score, and why, after its first 100 steps.

>>> from tuneahead import Goal, Recipe, assess
>>> assess("tickets.jsonl", Recipe(learning_rate=1e-3), goal=Goal(gain_pp=3)).verdict  # doctest: +SKIP

Names are loaded when they are first used: importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuneahead.assessment import Assessment as Assessment
    from tuneahead.assessment import Checkup as Checkup
    from tuneahead.assessment import read_assessment as read_assessment
    from tuneahead.benchmark.items import Benchmark as Benchmark
    from tuneahead.checkup import check as check
    from tuneahead.dataset import ColumnMapping as ColumnMapping
    from tuneahead.dataset import Dataset as Dataset
    from tuneahead.dataset import Example as Example
    from tuneahead.dataset import read_examples as read_examples
    from tuneahead.errors import TuneAheadError as TuneAheadError
    from tuneahead.features.vector import FeatureVector as FeatureVector
    from tuneahead.history.store import RunStore as RunStore
    from tuneahead.judge import assess as assess
    from tuneahead.judge import probe as probe
    from tuneahead.judge import rank as rank
    from tuneahead.judge import verify as verify
    from tuneahead.predictor.predictor import Predictor as Predictor
    from tuneahead.predictor.predictor import load_predictor as load_predictor
    from tuneahead.ranking import best_chances as best_chances
    from tuneahead.recipe import Recipe as Recipe
    from tuneahead.recipe import read_recipe as read_recipe
    from tuneahead.record import record_run as record_run
    from tuneahead.report import write_html as write_html
    from tuneahead.trace import ProbeTrace as ProbeTrace
    from tuneahead.verdict import Attribution as Attribution
    from tuneahead.verdict import Finding as Finding
    from tuneahead.verdict import Fix as Fix
    from tuneahead.verdict import Forecast as Forecast
    from tuneahead.verdict import Goal as Goal
    from tuneahead.verdict import Verdict as Verdict
    from tuneahead.verdict import decide as decide
    from tuneahead.workbench import Setup as Setup
    from tuneahead.workbench import Workbench as Workbench
    from tuneahead.workbench import open_workbench as open_workbench

__version__ = "0.1.0"

_HOMES = {
    "assessment": ("Assessment", "Checkup", "read_assessment"),
    "benchmark.items": ("Benchmark",),
    "dataset": ("ColumnMapping", "Dataset", "Example", "read_examples"),
    "errors": ("TuneAheadError",),
    "features.vector": ("FeatureVector",),
    "history.store": ("RunStore",),
    "checkup": ("check",),
    "judge": ("assess", "probe", "rank", "verify"),
    "predictor.predictor": ("Predictor", "load_predictor"),
    "ranking": ("best_chances",),
    "recipe": ("Recipe", "read_recipe"),
    "record": ("record_run",),
    "report": ("write_html",),
    "trace": ("ProbeTrace",),
    "verdict": ("Attribution", "Finding", "Fix", "Forecast", "Goal", "Verdict", "decide"),
    "workbench": ("Setup", "Workbench", "open_workbench"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - one list, from which the names are also loaded


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tuneahead' has no attribute {name!r}")
    value = getattr(import_module(f"tuneahead.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
