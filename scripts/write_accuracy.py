"""Write the README's accuracy table from the shipped backtest: python scripts/write_accuracy.py."""

from __future__ import annotations

from pathlib import Path

from tuneahead.backtest import BacktestResult, read_result
from tuneahead.backtest.tables import Cell, show
from tuneahead.workbench import shipped_backtest

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- accuracy: written by scripts/write_accuracy.py -->", "<!-- end of accuracy -->"
PROBE, AT_RANDOM = "Persistence (score at the probe)", "Mean of the training scores"
LEFT_OUT = ("Base score", "Persistence + mean gain", "Seed-noise floor")


def main() -> None:
    """Put the table between its two marks."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = accuracy(read_result(shipped_backtest()))
    README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    print("README.md written")


def accuracy(result: BacktestResult) -> str:
    """Systems by held-out error, best first."""
    table = result.table("main grouped")
    at = {name: place for place, name in enumerate(table.columns)}
    rows = [row for row in reversed(table.rows) if row[0] not in LEFT_OUT and row[at["tasks"]]]
    measured = rows[0][at["tasks"]]
    head = (
        f"On {result.tasks} real LoRA tasks of the [lab](docs/lab.md) ({result.data_sets} data sets, full "
        "runs of 300 to 1,500 steps,\nscore on an 824-question examination), every data set held out in turn"
        f"{'' if measured == result.tasks else f'; errors on the {measured} tasks with several seeds'}:\n"
    )
    lines = [
        "| system | RMSE, points (95 % interval) | R2 | within 3 points | 90 % interval covers |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        error = f"{show(row[at['RMSE']])} ({show(row[at['95 % interval']])})"
        shares = [percent(row[at[name]]) for name in ("within 3 pp %", "coverage %")]
        lines.append(f"| {row[0]} | {error} | {show(row[at['R2']])} | {shares[0]} | {shares[1]} |")
    if measured != result.tasks:
        lines.append(f"\n{over_all(result)}")
    if "recipe choice" in {table.name for table in result.tables}:
        lines.append(f"\n{choosing(result)}")
    return "\n".join([head, *lines])


def over_all(result: BacktestResult) -> str:
    """Our error on every held-out task, also those run under one seed, from the headline table."""
    found = {row[0]: row[1] for row in result.table("headline grouped").rows}
    error = found[f"RMSE over all {result.tasks} tasks, points"]
    inside = found[f"90 % intervals cover, all {result.tasks} tasks, %"]
    return (
        f"Over all {result.tasks} tasks, also those run under one seed, TuneAhead's error is {show(error)},\n"
        f"and {percent(inside)} lie in their intervals."
    )


def choosing(result: BacktestResult) -> str:
    """What the best forecast among a data set's recipes gives up, beside the probe's score and chance."""
    table = result.table("recipe choice")
    at = {name: place for place, name in enumerate(table.columns)}
    rows = {str(row[0]): row for row in table.rows}
    ours = rows["TuneAhead (default)"]
    lost = [show(rows[name][at["points given up"]]) for name in (PROBE, AT_RANDOM)]
    sets = table.note.partition(" ")[0]
    return (
        f"Choosing a recipe (`tuneahead rank`), on {sets} data sets with four recipes or more: the one with\n"
        f"the best forecast ends {show(ours[at['points given up']])} points below the data set's best, "
        f"the one with the best score at the probe's end {lost[0]},\none at random {lost[1]}. "
        f"It is the best in {percent(ours[at['best picked %']])} of the cases; `rank` itself estimated "
        f"{percent(ours[at['chance said %']])} on average."
    )


def percent(cell: Cell) -> str:
    """A share with its sign, or a dash."""
    return f"{show(cell)} %" if isinstance(cell, float) else "–"


if __name__ == "__main__":
    main()
