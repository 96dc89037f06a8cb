"""The command line ``stream-fp-offline``: one group, one file of `offline.commands` a command.

Every error that is raised on purpose ends here as one readable line on stderr: with status 2 where a setting or the
usage is wrong, else 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

import stream_fp
from offline.commands.ab import ab_command
from offline.commands.evaluate import evaluate_command
from offline.commands.events import events_command
from offline.commands.simulate import simulate_command
from offline.commands.train import train_command
from offline.console import say
from stream_fp.errors import ConfigError, StreamFpError

__all__ = ["cli", "main"]

_PROGRAM: Final = "stream-fp-offline"
_USAGE: Final = 2
_FAILURE: Final = 1
_INTERRUPTED: Final = 130  # as shells say it


@click.group(_PROGRAM, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(stream_fp.__version__, prog_name=_PROGRAM)
def cli() -> None:
    """Learn the archetypes of trading sessions, and judge what was learned."""


for _command in (ab_command, events_command, simulate_command, train_command, evaluate_command):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; `arguments` are those of the process by default."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # Without standalone mode, click returns the status of --help and the like instead of exiting.
        status = cli.main(args=arguments, prog_name=_PROGRAM, standalone_mode=False)
    except click.Abort:
        say(f"{_PROGRAM}: interrupted")
        return _INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except StreamFpError as error:
        say(f"{_PROGRAM}: {' '.join(str(error).splitlines())}")
        return _USAGE if isinstance(error, ConfigError) else _FAILURE
    return status if isinstance(status, int) else 0
