"""What all commands have in common: an option is given once, and who stops a command is told what is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperCommand, TyperOption

from tuneahead.errors import TuneAheadError

EXIT_TERMINATED = 143
# The class of what typer hands over here is its own affair: it is that of click in some of its versions.
Context = Any


class Command(TyperCommand):
    """A command of ours.

    Where Ctrl+C or SIGTERM ends it, one line says what it leaves: see :func:`told_when_stopped`. Raises
    :class:`TuneAheadError` for an option of one value that is given twice, for the last would win, and for an
    empty value, for many a default stands in where nothing was named.
    """

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """As typer does, once every option is known to be given with a value, and once."""
        if not ctx.resilient_parsing:
            self._require_values(ctx, args)
        return super().parse_args(ctx, args)

    def _require_values(self, ctx: Context, args: list[str]) -> None:
        values, _, given = self.make_parser(ctx).parse_args(args=[*args])
        seen: set[str] = set()
        for one in given:
            # A flag says the same a second time.
            if not isinstance(one, TyperOption) or one.is_flag:
                continue
            name = max(one.opts, key=len)
            value = values[one.name]
            if "" in (value if one.multiple else [value]):
                raise TuneAheadError(
                    f"{name} is given without a value",
                    remedy="leave it out; or is a variable of the shell not set?",
                )
            if name in seen and not one.multiple:
                raise TuneAheadError(f"{name} is given twice and takes one value", remedy="give it once")
            seen.add(name)

    def invoke(self, ctx: Context) -> Any:
        """Do what the command does."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, SystemExit) as stop:
            # Where whoever read the results has enough of them, rich ends the program, too.
            if isinstance(stop, KeyboardInterrupt) or stop.code == EXIT_TERMINATED:
                told = getattr(stop, "__notes__", ["stopped, nothing was written"])
                print("\n".join(told), file=sys.stderr)
            raise


@contextmanager
def told_when_stopped(left: Callable[[], str]) -> Iterator[None]:
    """Where Ctrl+C or SIGTERM ends what is within, ``left`` says what it leaves; if empty: nothing."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if told := left():
            stop.add_note(told)
        raise
