"""The command line. Every step of the nightly run is a command; `jobs/*.py` call the same commands under spark-submit.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused by the quality gate.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from tgq.cli.commands import attributes, explore, index, machine, maintain, models, multiply, nightly, queries
from tgq.cli.failures import known_error
from tgq.cli.options import err
from tgq.errors import GateError, TgqError

app = typer.Typer(
    name="tgq", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Nightly item embeddings on Spark. Each run embeds only what changed, measures retrieval on the full pool, and publishes "
    "behind a quality gate.\n\n"
    "Start with [bold]tgq doctor[/bold], then [bold]tgq demo-catalog demo[/bold] and [bold]tgq nightly --catalog demo[/bold].",
)  # fmt: skip
for _module in (nightly, explore, models, queries, attributes, maintain, machine, multiply):
    app.add_typer(_module.commands)
app.add_typer(index.commands, name="index")
app.add_typer(machine.config_commands, name="config")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script and of `jobs/*.py`; always exits with one of the four codes."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(args=list(argv) if argv is not None else None, standalone_mode=False)
    except TgqError as e:
        err.print(f"tgq: {e}", style="red" if not isinstance(e, GateError) else "yellow", markup=False, soft_wrap=True)
        code = e.exit_code
    except typer.Exit as e:
        code = e.exit_code
    except Exception as e:
        import click

        if isinstance(e, click.ClickException) or hasattr(e, "format_message"):
            err.print(f"tgq: {' '.join(e.format_message().split())}", style="red", markup=False)
            code = 2
        elif type(e).__name__ in ("Abort",):
            code = 130
        elif line := known_error(e):
            err.print(f"tgq: {line}", style="red", markup=False, soft_wrap=True)
            code = 1
        else:
            raise
    except KeyboardInterrupt:
        err.print("tgq: interrupted; run the same command again to continue", markup=False)
        code = 130
    sys.stdout.flush()
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
