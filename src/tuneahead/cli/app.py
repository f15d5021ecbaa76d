"""The entry point: registers the commands and turns errors into one clear message and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from tuneahead import __version__
from tuneahead.cli import data, fitting, history, judge, runs
from tuneahead.cli.command import EXIT_TERMINATED, Command
from tuneahead.errors import TuneAheadError
from tuneahead.printable import printable

EXIT_INTERNAL, EXIT_USER, EXIT_INTERRUPTED = 1, 2, 130
_UNWRITABLE = {
    errno.ENOSPC: "no space is left to write to",
    errno.EDQUOT: "the quota of what may be written is used up",
    errno.EFBIG: "a file would become larger than it may be here",
    errno.EROFS: "what was to be written to is read-only",
}
"""What a disk may refuse, whatever the command."""

HELP = """Know how a fine-tune will score, and why, after its first 100 steps.

Give a data set and a recipe. TuneAhead checks the data, trains the first 100
steps of that very run, and forecasts the final benchmark score with an
interval, the reasons, and a verdict: go, no go or unsure.

[bold]First steps[/bold]

  tuneahead demo                                see it on two made data sets

  tuneahead check data.jsonl -b ./my-model      the data alone, no training

  tuneahead clean data.jsonl -o clean.jsonl     a copy without harmful rows

  tuneahead assess data.jsonl -b ./my-model --benchmark exam.jsonl --gain 3

  tuneahead rank data.jsonl -b ./my-model -r a.yaml -r b.yaml

[bold]From your own runs[/bold]

  tuneahead assess data.jsonl ... --store runs.sqlite    keep the probed run

  tuneahead runs record RUN --score 61.2        its score, once it is known

  tuneahead runs import outputs/ ...            runs made before

  tuneahead fit --store runs.sqlite --benchmark exam --start shipped

  tuneahead assess data.jsonl ... --predictor predictor

[bold]In the lab[/bold]

  tuneahead build --store lab.sqlite            many runs of the tiny lab base

Your own model, step by step: docs/own-model.md

Results go to stdout, progress to stderr. Exit codes: 0 done, 1 internal
error, 2 wrong input or usage, 130 interrupted, 143 terminated; with
--exit-code also 3 for no go (check: stop), 4 for unsure."""

app = typer.Typer(
    name="tuneahead",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tuneahead {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    pass


_COMMANDS: tuple[Callable[..., None], ...] = (
    data.check,
    data.clean,
    judge.assess,
    judge.rank,
    data.probe,
    judge.report,
    judge.demo,
    history.build,
    fitting.fit,
    history.backtest,
)
for _command in _COMMANDS:
    app.command(cls=Command)(_command)
app.add_typer(runs.runs, name="runs")


def main() -> None:
    """Run the command line; user errors and a disk that refuses end with code 2 and one message on stderr."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows a question mark; it must not end the program.
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="replace")
    # Our own bar is the only one on stderr.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Another thread than the first can't say what a signal does.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            app()
        finally:
            # Here and not at Python's end, where a failure would be told by a traceback.
            sys.stdout.flush()
    except TuneAheadError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(EXIT_USER)
    except OSError as error:
        if error.errno not in (*_UNWRITABLE, errno.EPIPE):
            raise
        _drop_stdout()
        if error.errno == errno.EPIPE:
            # Whoever read the results has enough of them.
            sys.exit(EXIT_INTERNAL)
        why = _UNWRITABLE[error.errno]
        print(f"error: {why}\n  -> write to another disk, or free some space", file=sys.stderr)
        sys.exit(EXIT_USER)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _terminate(*_: object) -> None:
    """End as on Ctrl+C: workers are ended too, and nothing half-written is left behind."""
    sys.exit(EXIT_TERMINATED)


def _drop_stdout() -> None:
    """What could not be written stays in the buffer, and Python would fail on it once more at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
