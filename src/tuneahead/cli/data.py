"""Commands that look at data or at a probe and judge nothing: check, clean, probe."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneahead.cli import options as opt
from tuneahead.errors import TuneAheadError
from tuneahead.wholefile import write_whole

if TYPE_CHECKING:
    from tuneahead.trace import ProbeTrace

EXIT_STOP = 3


def check(
    file: opt.DataFile,
    recipe: opt.RecipeFile = None,
    settings: opt.Settings = None,
    mapping: opt.Mapping = None,
    base: opt.BaseOrNone = None,
    benchmark: opt.BenchmarkOrLabExam = "",
    device: opt.Device = "auto",
    no_weights: Annotated[
        bool,
        typer.Option(
            "--no-weights",
            help="Read only tokenizer and layers of --base: without its opinion of the rows.",
            rich_help_panel=opt.JUDGED,
        ),
    ] = False,
    as_json: opt.AsJson = False,
    html: opt.HtmlFile = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.jsonl",
            help="Write a copy without harmful rows, and a ledger of them.",
            rich_help_panel=opt.OUTPUT,
            show_default=False,
        ),
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 3 when a check says stop.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Check again, whatever was kept from an earlier check.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that measure rows of large data (0: one a core, at most 8).")
    ] = 0,
) -> None:
    """Look at the data: preflight checks and measurements, no training."""
    from tuneahead.cli.checking import Request, run_check, show_check
    from tuneahead.workbench import Setup

    request = Request(
        file,
        opt.read_mapping(mapping),
        opt.read_recipe_options(recipe, settings),
        Setup(base, benchmark or "lab-exam", device=device, weights=not no_weights),
        html=html,
        fix=fix,
        workers=workers,
        recipe_file=recipe,
        benchmark_named=bool(benchmark),
    )
    found = run_check(request, use_cache=not no_cache)
    show_check(request, found, as_json=as_json)
    if exit_code and found.checkup.stopped:
        raise typer.Exit(EXIT_STOP)


def clean(
    file: opt.DataFile,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Cleaned copy (JSONL); its ledger lies beside it.", show_default=False
        ),
    ],
    mapping: opt.Mapping = None,
    benchmark: Annotated[
        str,
        typer.Option(
            help="Remove rows that hold its questions: a benchmark's name or file, as in check.",
            show_default=False,
        ),
    ] = "",
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REASON",
            help="Remove for this reason too, gibberish or near-duplicates; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Write a copy without empty, broken and repeated rows, with a ledger of what went."""
    from tuneahead.cleaning import OPTIONAL_REASONS, REASONS, clean_file, find_targets
    from tuneahead.cli.checking import cleaned_lines, cleaned_summary
    from tuneahead.workbench import find_benchmark

    for reason in also or []:
        if reason not in OPTIONAL_REASONS:
            raise TuneAheadError(
                f"--also {reason!r} is no further reason", remedy=f"use {' or '.join(OPTIONAL_REASONS)}"
            )
    opt.check_outputs({"--out": out}, file, benchmark)
    copy, ledger = find_targets(file, out)
    opt.check_outputs({"--out": copy, "the ledger": ledger}, file, benchmark)
    opt.require_writable_file(out, "--out")
    done = clean_file(
        file,
        out,
        mapping=opt.read_mapping(mapping),
        benchmarks=(find_benchmark(benchmark),) if benchmark else (),
        reasons=(*REASONS, *(also or ())),
    )
    print(json.dumps(cleaned_summary(done), indent=1) if as_json else "\n".join(cleaned_lines(done)))


def probe(
    file: opt.DataFile,
    recipe: opt.RecipeFile = None,
    settings: opt.Settings = None,
    mapping: opt.Mapping = None,
    base: opt.BaseName = "lab",
    benchmark: opt.BenchmarkName = "lab-exam",
    probe_steps: opt.ProbeSteps = 100,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the raw trace as safetensors.", rich_help_panel=opt.OUTPUT, show_default=False
        ),
    ] = None,
    device: opt.Device = "auto",
    as_json: opt.AsJson = False,
) -> None:
    """Train only the first steps of a run and show what was measured."""
    from tuneahead.cli.progress import ProgressBar
    from tuneahead.judge import load_dataset
    from tuneahead.judge import probe as run_probe
    from tuneahead.terminal import print_trace
    from tuneahead.workbench import Setup

    opt.check_outputs({"--out": out}, file, recipe, benchmark, base)
    opt.require_writable_file(out, "--out")
    chosen = opt.read_recipe_options(recipe, settings)
    dataset = load_dataset(file, opt.read_mapping(mapping))
    setup = Setup(base=base, benchmark=benchmark, probe_steps=probe_steps, device=device)
    with ProgressBar() as bar:
        trace = run_probe(dataset, chosen, bench=setup, watch=bar)
    if out is not None:
        _write_bytes(out, trace.to_bytes())
    if as_json:
        print(json.dumps(_trace_summary(trace), indent=1))
    else:
        print_trace(opt.open_console(), trace)


def _write_bytes(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise TuneAheadError(f"can't write {path}: {error.strerror}", remedy="give another path") from None


def _trace_summary(trace: ProbeTrace) -> dict[str, object]:
    """The trace's main curves as plain JSON values, null where a measurement is absent."""

    def plain(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return {
        "kind": "probe",
        "base": trace.info.base,
        "data_fingerprint": trace.info.data_fingerprint,
        "total_steps": trace.info.total_steps,
        "failure": trace.info.failure,
        "loss_nats": [plain(value) for value in trace.steps.loss_nats],
        "grad_norm": [plain(value) for value in trace.steps.grad_norm],
        "cues": [
            {
                "step": cue.step,
                "score_pp": plain(cue.score_pp(trace.info.metric)),
                "heldout_loss_nats": plain(cue.heldout_loss_nats),
                "reference_loss_nats": plain(cue.reference_loss_nats),
            }
            for cue in trace.cues
        ],
    }
