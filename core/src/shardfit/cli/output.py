"""What every command's answer has in common: tables or JSON, one line for an error, exit codes. Plugins use it, too."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from shardfit.errors import ShardfitError
from shardfit.plain_values import plain_value
from shardfit.redaction import redact

USER_ERROR = 2
INTERRUPTED = 130

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


class Output:
    """Where a command's answer goes: tables for people, or one JSON document.

    Args:
        as_json: Which of them.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._answer: tuple[Mapping[str, Any], Callable[[Console, Any], None]] | None = None

    def write(self, content: Mapping[str, Any], show: Callable[[Console, Any], None]) -> None:
        """Take the answer; it is printed when the command has ended well.

        Args:
            content: What JSON shall hold.
            show: Prints it for people.
        """
        self._answer = (content, show)

    def flush(self) -> None:
        """Print the answer, if there is one."""
        if self._answer is None:
            return
        content, show = self._answer
        if self._as_json:
            typer.echo(json.dumps(plain_value(content), allow_nan=False))
        else:
            # A pipe has no width; folding paths there would break what reads them.
            show(Console(width=None if sys.stdout.isatty() else 200), content)


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[Output]:
    """Run a command: print its answer, or its error without secrets; standard output holds nothing else with `--json`.

    Args:
        as_json: Whether the answer is JSON.

    Raises:
        typer.Exit: With 2 after a `ShardfitError`, 130 after Ctrl-C.
    """
    output = Output(as_json)
    try:
        with _stdout_to_stderr() if as_json else contextlib.nullcontext():
            yield output
        output.flush()
    except ShardfitError as error:
        typer.echo(f"error: {redact(str(error))}", err=True)
        raise typer.Exit(USER_ERROR) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    # Libraries print from C and from workers, past Python's own redirection.
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
