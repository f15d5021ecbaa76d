"""Commands that give a verdict or show one: assess, rank, report, demo."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.cli import options as opt
from tuneahead.cli.command import told_when_stopped
from tuneahead.cli.keeping import keep, keep_outcome, open_history, tell_of_misnamed
from tuneahead.cli.options import open_console
from tuneahead.counts import counted
from tuneahead.errors import TuneAheadError

if TYPE_CHECKING:
    from rich.console import Console

    from tuneahead.assessment import Assessment
    from tuneahead.recipe import Recipe

EXIT_CODES = {"GO": 0, "NO_GO": 3, "UNSURE": 4}


def assess(
    file: opt.DataFile,
    recipe: opt.RecipeFile = None,
    settings: opt.Settings = None,
    mapping: opt.Mapping = None,
    base: opt.BaseName = "lab",
    benchmark: opt.BenchmarkName = "lab-exam",
    goal: opt.GoalScore = None,
    gain: opt.GainPoints = None,
    probe_steps: opt.ProbeSteps = 100,
    predictor: opt.PredictorFolder = "",
    device: opt.Device = "auto",
    price: opt.Price = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Then make the full run and compare, whatever the verdict, save where preflight stops it or "
            "the probe breaks down. Its weights are dropped without --adapter.",
            rich_help_panel=opt.OUTPUT,
        ),
    ] = False,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="With --verify: keep the trained adapter in this folder (PEFT's format).",
            rich_help_panel=opt.OUTPUT,
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Keep the run in this history, to learn from its score later.",
            rich_help_panel=opt.OUTPUT,
            show_default=False,
        ),
    ] = None,
    as_json: opt.AsJson = False,
    html: opt.HtmlFile = None,
    exit_code: opt.ExitCode = False,
) -> None:
    """Forecast the score of a full run from its first steps, with reasons and a verdict."""
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.judge import assess as run_assess
    from tuneahead.judge import load_dataset
    from tuneahead.judge import verify as run_verify
    from tuneahead.workbench import RUNS, Setup, open_workbench, require_probe_steps

    if adapter is not None and not verify:
        raise TuneAheadError(
            "--adapter keeps what the full run trained, and without --verify there is none",
            remedy="add --verify, or leave --adapter out",
        )
    outputs = {"--html": html, "--store": store, "--adapter": adapter}
    opt.check_outputs(outputs, file, recipe, benchmark, base)
    opt.require_writable_file(html, "--html")
    opt.require_writable_folder(adapter, "--adapter")
    wanted = opt.read_goal(goal, gain)
    chosen = opt.read_recipe_options(recipe, settings)
    dataset = load_dataset(file, opt.read_mapping(mapping))
    steps = require_probe_steps(probe_steps)
    setup = Setup(base, benchmark, predictor, steps, chosen.precision, device, opt.read_price(price))
    # Before any training: a store that can't be used is refused while nothing is lost.
    history = None if store is None else open_history(store)
    if history is not None:
        tell_of_misnamed(base, history)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if verify else None
        bar = stack.enter_context(ProgressBar())
        bench = open_workbench(setup, store=str(store or RUNS), watch=bar)
        found = run_assess(dataset, chosen, goal=wanted, bench=bench, checkpoint_dir=folder, watch=bar)
        goes_on = verify and found.trace is not None and not found.trace.info.failure
        unkept: TuneAheadError | KeyboardInterrupt | None = None
        if history is not None:
            unkept = keep(found, history, scored_later=not goes_on)
        if verify and not goes_on:
            why = "preflight stopped it" if found.trace is None else "the probe broke down"
            print(f"--verify made no full run, and there is no adapter: {why}", file=sys.stderr)
        if goes_on and unkept is None:
            _announce(found, adapter)
            kept = "" if store is None else f"stopped, the probed run is kept in {store}"
            stack.enter_context(told_when_stopped(lambda: kept))
            try:
                found = run_verify(
                    found, dataset, bench=bench, checkpoint_dir=folder, save_dir=adapter, watch=bar
                )
                unkept = None if history is None else keep_outcome(found, history)
            except (TuneAheadError, KeyboardInterrupt) as error:
                # The probe has its worth without the full run.
                unkept = error
    _show(found, as_json, html)
    if isinstance(unkept, KeyboardInterrupt):
        unkept.add_note("stopped before the full run was done: what is shown is what its probe told")
    if unkept := unkept or _lost_adapter(found):
        raise unkept
    if exit_code:
        raise typer.Exit(EXIT_CODES[found.verdict.decision])


def rank(
    file: opt.DataFile,
    recipe: Annotated[
        list[Path] | None,
        typer.Option(
            "--recipe",
            "-r",
            metavar="FILE",
            help="A recipe to compare; repeat it.",
            rich_help_panel=opt.DATA,
            show_default=False,
        ),
    ] = None,
    settings: opt.Settings = None,
    mapping: opt.Mapping = None,
    base: opt.BaseName = "lab",
    benchmark: opt.BenchmarkName = "lab-exam",
    goal: opt.GoalScore = None,
    gain: opt.GainPoints = None,
    probe_steps: opt.ProbeSteps = 100,
    predictor: opt.PredictorFolder = "",
    device: opt.Device = "auto",
    price: opt.Price = None,
    as_json: opt.AsJson = False,
) -> None:
    """Compare several recipes on one data set, all probed in one pass."""
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.judge import load_dataset
    from tuneahead.judge import rank as run_rank
    from tuneahead.ranking import best_chances
    from tuneahead.terminal import print_ranking
    from tuneahead.workbench import Setup

    paths = recipe or []
    if len(paths) < 2:
        raise TuneAheadError(
            f"rank compares recipes, {len(paths)} given",
            remedy="give -r first.yaml -r second.yaml, or use 'assess'",
        )
    twice = next((path for place, path in enumerate(paths) if path in paths[:place]), None)
    if twice is not None:
        raise TuneAheadError(f"the recipe {twice} is given twice", remedy="name every recipe once")
    chosen: dict[str, Recipe] = {str(path): opt.read_recipe_options(path, settings) for path in paths}
    dataset = load_dataset(file, opt.read_mapping(mapping))
    hourly = opt.read_price(price)
    setup = Setup(base, benchmark, predictor, probe_steps, device=device, price_per_hour=hourly)
    with ProgressBar() as bar:
        found = run_rank(
            dataset, list(chosen.values()), goal=opt.read_goal(goal, gain), bench=setup, watch=bar
        )
    names: dict[str, list[str]] = {}
    for name, one in chosen.items():
        names.setdefault(one.fingerprint, []).append(name)
    labels = [names[one.recipe.fingerprint].pop(0) for one in found]
    if as_json:
        chances = [None if math.isnan(chance) else chance for chance in best_chances(found)]
        ranked = [
            {"recipe_file": label, "best_chance": chance, **json.loads(one.to_json())}
            for label, chance, one in zip(labels, chances, found, strict=True)
        ]
        print(json.dumps(ranked, indent=1))
    else:
        print_ranking(open_console(), labels, found)


def report(
    file: Annotated[
        Path,
        typer.Argument(metavar="ASSESSMENT", help="JSON that 'assess --json' wrote.", show_default=False),
    ],
    html: Annotated[Path, typer.Option("--html", "-o", help="Where to write the page.")] = Path(
        "report.html"
    ),
) -> None:
    """Make the HTML report of a saved assessment."""
    from tuneahead.assessment import read_assessment
    from tuneahead.report import write_html

    opt.check_outputs({"--html": html}, file)
    print(write_html(read_assessment(file), html))


def demo(
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder for data and reports.")] = Path(
        "tuneahead-demo"
    ),
    base: Annotated[
        str,
        typer.Option(help="smollm2 or lab. Default: smollm2 where it is installed.", show_default=False),
    ] = "",
) -> None:
    """Assess a healthy and a broken data set on SmolLM2-135M-Instruct, or on the packaged tiny model."""
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.judge import assess as run_assess
    from tuneahead.lab.datasets import broken_example, generate, healthy_example, write_jsonl
    from tuneahead.predictor.packaged import shipped_bases
    from tuneahead.report import write_html
    from tuneahead.training.sources import is_installed
    from tuneahead.verdict import Goal
    from tuneahead.workbench import Setup, open_workbench

    real = is_installed("smollm2") and "smollm2" in shipped_bases()
    chosen = base or ("smollm2" if real else "lab")
    recipe, gain_pp = _demo_run(chosen)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TuneAheadError(
            f"can't make the folder {folder}: {error.strerror}", remedy="give another --out"
        ) from None
    for name in ("healthy", "broken"):
        for ending in ("jsonl", "json", "html"):
            opt.require_writable_file(folder / f"{name}.{ending}", "--out")
    console = open_console()
    pages = []
    left = f"stopped, what was finished lies in {folder}"
    with told_when_stopped(lambda: left), ProgressBar() as bar:
        bench = open_workbench(Setup(base=chosen), watch=bar)
        for name, spec in (("healthy", healthy_example()), ("broken", broken_example())):
            data = folder / f"{name}.jsonl"
            write_jsonl(generate(spec), data)
            found = run_assess(data, recipe, goal=Goal(gain_pp=gain_pp), bench=bench, watch=bar)
            found.save(folder / f"{name}.json")
            pages.append(write_html(found, folder / f"{name}.html"))
            _print(console, found)
    said = "Open the reports in a browser: " + ", ".join(map(str, pages))
    console.print(said, soft_wrap=True, markup=False)


def _demo_run(base: str) -> tuple[Recipe, float]:
    """A usual recipe among those that the shipped predictors learned from, and the gain asked of it.

    Of SmolLM2 more is asked: its history is short, and its intervals are too wide to tell small gains apart.
    """
    from tuneahead.recipe import Recipe

    real = Recipe(learning_rate=5e-4, max_steps=400, batch_size=4, max_length=96, template="raw")
    runs = {"lab": (Recipe(learning_rate=2e-3, max_steps=1000, max_length=128), 3.0), "smollm2": (real, 8.0)}
    if base not in runs:
        raise TuneAheadError(
            f"the demo does not run on base {base!r}", remedy="use smollm2 or lab; assess takes any base"
        )
    return runs[base]


def _announce(found: Assessment, adapter: Path | None) -> None:
    """Say the verdict while the full run can still be broken off."""
    from tuneahead.report import words

    print(f"{words.VERDICTS[found.verdict.decision].upper()}  {words.lead(found)}", file=sys.stderr)
    kept = "is dropped in the end, see --adapter" if adapter is None else f"goes to {adapter}"
    run = f"the full run of {counted(found.task.total_steps, 'step')}"
    deed = f"asks {run}, which the probe was, every item" if found.complete else f"makes {run} all the same"
    print(f"--verify {deed}; its adapter {kept}", file=sys.stderr)


def _lost_adapter(found: Assessment) -> TuneAheadError | None:
    if found.outcome is None or not found.outcome.adapter_absent:
        return None
    return TuneAheadError(
        f"the adapter was not kept: {found.outcome.adapter_absent}",
        remedy="free some space, or name another place, and run the command again",
    )


def _show(found: Assessment, as_json: bool, html: Path | None) -> None:
    from tuneahead.report import write_html

    if as_json:
        print(found.to_json())
    else:
        _print(open_console(), found)
    if html is not None:
        print(f"report: {write_html(found, html)}", file=sys.stderr)


def _print(console: Console, found: Assessment) -> None:
    from tuneahead.terminal import print_assessment

    print_assessment(console, found)
