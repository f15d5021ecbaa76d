"""Write docs/results.md and its plots from the shipped backtest: python scripts/write_results.py.

Needs matplotlib (pip install -e '.[docs]').
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from tuneahead.backtest import BacktestResult, read_result
from tuneahead.backtest.tables import Table
from tuneahead.predictor.packaged import shipped_backtest

DOCS = Path(__file__).parents[1] / "docs"
IMAGES = DOCS / "images"
HEAD = """# Results

What `tuneahead backtest` prints: the backtest on the shipped table, which is derived from the archived runs
(see [lab.md](lab.md)). `tuneahead backtest --refit -p grouped -p random -p family-out` fits the three
protocols again; `scripts/ship_lab.py` makes all of it from the archive. Figures of the paper (arXiv
2606.17660, which describes the method) are those of its own runs on Qwen2.5-7B-Instruct and MMLU; they
stand beside ours for orientation, not as a contest on equal rows.

"""
OURS, OTHER, GREY = "#1f5fbf", "#c0504d", "#8a8f98"
LONGEST_TABLE = 60
"""Tables with more rows are folded away on the page."""


def main() -> None:
    """Write the page and every plot whose table the backtest has."""
    result = read_result(shipped_backtest())
    plt.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "tuneahead"}
    )
    plots = [
        plot
        for plot in (predicted(result), decision_curve(result), learning(result), probe_length(result))
        if plot
    ]
    head = f"{result.tasks} tasks on {result.data_sets} data sets, seed {result.seed}. Errors in points."
    parts = [head, *plots, *(section(table) for table in result.tables)]
    (DOCS / "results.md").write_text(HEAD + "\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"results.md and {len(plots)} plots written")


def section(table: Table) -> str:
    """A table, folded away when it is long."""
    text = table.to_markdown()
    if len(table.rows) <= LONGEST_TABLE:
        return text
    title, _, body = text.partition("\n")
    return f"{title}\n\n<details><summary>{len(table.rows)} rows</summary>\n\n{body.strip()}\n\n</details>"


def save(name: str, caption: str) -> str:
    """Save the current figure and give the page's line for it."""
    IMAGES.mkdir(exist_ok=True)
    plt.tight_layout()
    plt.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
    plt.close()
    return f"![{caption}](images/{name}.svg)"


def column(table: Table, name: str, rows: Sequence[tuple[object, ...]] | None = None) -> list[float]:
    """A column as numbers, NaN where nothing was measured."""
    at = table.columns.index(name)
    values = [row[at] for row in (table.rows if rows is None else rows)]
    return [float(v) if isinstance(v, int | float) else float("nan") for v in values]


def predicted(result: BacktestResult) -> str:
    """Predicted against measured scores of held-out tasks, with their intervals."""
    found = result.predictions["grouped"]
    true = np.array([p.score_pp for p in found])
    guess = np.array([p.predicted_pp for p in found])
    low, high = np.array([p.low_pp for p in found]), np.array([p.high_pp for p in found])
    _, axes = plt.subplots(figsize=(4.8, 4.6))
    ends = [min(true.min(), guess.min()) - 2, max(true.max(), guess.max()) + 2]
    axes.fill_between(ends, np.array(ends) - 3, np.array(ends) + 3, color=GREY, alpha=0.15, lw=0)
    axes.plot(ends, ends, color=GREY, lw=1)
    axes.vlines(true, low, high, color=OURS, alpha=0.10, lw=1)
    axes.scatter(true, guess, s=9, color=OURS, alpha=0.65, lw=0)
    axes.set(xlabel="measured score, points", ylabel="predicted score, points", xlim=ends, ylim=ends)
    axes.set_title("Held-out data sets; band: within 3 points", loc="left", fontsize=9)
    return save("predicted", "Predicted against measured scores of held-out tasks")


def decision_curve(result: BacktestResult) -> str:
    """Compute saved, good runs kept and bad runs caught at every goal."""
    table = result.table("decision curve grouped")
    goal = column(table, "tau")
    _, axes = plt.subplots(figsize=(6.2, 3.4))
    for name, label, colour in (
        ("compute saved %", "compute saved", OURS),
        ("good kept %", "good runs kept", "#3a8f5c"),
        ("bad caught %", "bad runs caught", OTHER),
    ):
        axes.plot(goal, column(table, name), color=colour, lw=1.6, label=label)
    axes.set(xlabel="goal tau, points", ylabel="%", ylim=(0, 101))
    axes.legend(frameon=False, loc="lower right")
    axes.set_title(
        "Run when the prediction reaches the goal; every probe is paid for", loc="left", fontsize=9
    )
    return save("decisions", "Compute saved, good runs kept and bad runs caught at every goal")


def learning(result: BacktestResult) -> str:
    """Error by number of past runs."""
    if not result.has("learning curve"):
        return ""
    table = result.table("learning curve")
    _, axes = plt.subplots(figsize=(5.2, 3.2))
    axes.plot(column(table, "training tasks"), column(table, "RMSE"), "o-", color=OURS, lw=1.6, ms=4)
    finish(axes, "past runs (tasks)", "Error by number of past runs; data sets held out")
    return save("learning", "Error by number of past runs")


def probe_length(result: BacktestResult) -> str:
    """Error by length of the probe, ours and persistence's."""
    if not result.has("probe length"):
        return ""
    table = result.table("probe length")
    steps = column(table, "probe steps")
    _, axes = plt.subplots(figsize=(5.2, 3.2))
    persistence = column(table, "persistence RMSE")
    axes.plot(steps, persistence, "s--", color=GREY, lw=1.4, ms=4, label="persistence")
    axes.plot(steps, column(table, "RMSE"), "o-", color=OURS, lw=1.6, ms=4, label="TuneAhead")
    axes.legend(frameon=False)
    finish(axes, "probe, steps", "Error by length of the probe; data sets held out")
    return save("probe_length", "Error by length of the probe")


def finish(axes: Axes, label: str, title: str) -> None:
    """A logarithmic axis of counts and an error axis that begins at 0."""
    axes.set_xscale("log")
    ticks = axes.lines[-1].get_xdata()
    axes.set_xticks(list(ticks), [f"{int(tick)}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel=label, ylabel="RMSE, points", ylim=(0, None))
    axes.set_title(title, loc="left", fontsize=9)


if __name__ == "__main__":
    main()
