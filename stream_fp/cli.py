"""The ``stream-fp`` command line: run, replay, check; further commands join through entry points.

Errors that a user can mend are one line on standard error. Exit status: 0 done (or turned off), 1 the work failed,
2 a setting or an argument is wrong.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream_fp import __version__
from stream_fp.config import ENABLE_VARIABLE
from stream_fp.disk import may_pass
from stream_fp.errors import ConfigError, ModelError, StreamFpError
from stream_fp.health import check_address
from stream_fp.kafka.clients import connection_of
from stream_fp.loading import load_classifier, load_tracing
from stream_fp.logs import configure_logging
from stream_fp.options import setting_options, settings_from
from stream_fp.replay_command import replay_command
from stream_fp.service import check_sinks, run_service
from stream_fp.stamps import IS_COMPILED
from stream_fp.watchdog import Watchdog

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["cli", "main"]


class _Commands(click.Group):
    """Our commands, and those that other packages add through entry points.

    These are looked for when somebody asks for them, not before: that reads the metadata of every package installed,
    which takes the longer the more there are, and `run` has no use for it.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _plugins().get(cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_plugins()})


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="stream-fp")
def cli() -> None:
    """Follow live trading sessions and say early what each one is becoming."""


cli.add_command(replay_command)


@cli.command()
@click.option("--session-fingerprinting", "enabled", is_flag=True, default=None, help="Turn the service on.")
@setting_options()
def run(config: Path | None, **flags: Any) -> None:  # noqa: ANN401 - one per setting
    """Consume the input topic and publish predictions until SIGTERM."""
    settings = settings_from(config, flags)
    if not settings.enabled:
        click.echo(
            "Session fingerprinting is off. Turn it on with --session-fingerprinting, "
            f"{ENABLE_VARIABLE}=1, or `enabled = true` in the settings file."
        )
        return
    configure_logging(settings.log_level, settings.log_format)
    watchdog = Watchdog(settings.stall_exit_s)
    watchdog.start()
    asyncio.run(run_service(settings, watchdog))


@cli.command()
@setting_options()
def check(config: Path | None, **flags: Any) -> None:  # noqa: ANN401 - one per setting
    """Check settings and artifacts, and say what is wrong; asks no broker, so rights and topics are not looked at."""
    settings = settings_from(config, flags)
    check_sinks(settings)
    check_address(settings.http_host)
    connection_of(settings)
    if (tracing := load_tracing(settings)) is not None:
        tracing.close()
    classifier = load_classifier(settings)
    library = classifier.library
    checkpoints = ", ".join(f"{model.checkpoint_pct:g} %" for model in library.prefix_models)
    click.echo(f"settings  ok ({'on' if settings.enabled else 'off'})")
    click.echo(
        f"engine    {'compiled' if IS_COMPILED else 'interpreted, half to a third as fast (docs/performance.md)'}"
    )
    click.echo(f"library   ok: version {library.version}, {len(library.centroids)} archetypes, {library.path}")
    click.echo(f"          prefix models at {checkpoints}; fingerprint {library.fingerprint}")
    click.echo(f"          assignment {classifier.assignment} (setting: {settings.assignment})")
    for archetype_id, archetype in sorted(library.archetypes.items()):
        click.echo(f"          archetype {archetype_id}: {archetype.name}")
    missing = [c for c in settings.checkpoints if c not in {m.checkpoint_pct for m in library.prefix_models}]
    for checkpoint in missing:
        used = library.prefix_model(checkpoint).checkpoint_pct
        click.echo(f"note      no prefix model at {checkpoint:g} %: the one at {used:g} % will be used")


def _plugins() -> dict[str, click.Command]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - the service starts without it

    return {entry.name: _LazyCommand(entry) for entry in entry_points(group="stream_fp.commands")}


class _LazyCommand(click.Command):
    """A command of another package, imported when it is used, so that an extra that is not installed costs nothing."""

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(entry.name, short_help=f"(extra `{entry.name}`)", add_help_option=False)
        self._entry = entry
        self.ignore_unknown_options = True
        self.allow_extra_args = True

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        name = self._entry.name
        try:
            command: click.Command = self._entry.load()
        except ModuleNotFoundError as error:
            raise ConfigError(
                name, f"needs `{error.name}`, which is not installed: pip install 'stream-fp[{name}]'"
            ) from error
        return command.main(args=ctx.args, prog_name=ctx.command_path, standalone_mode=False)


def main() -> None:
    """Run the command line; the entry point."""
    try:
        status = cli.main(prog_name="stream-fp", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except ConfigError as error:
        click.echo(f"stream-fp: {error}", err=True)
        sys.exit(2)
    except ModelError as error:
        click.echo(f"stream-fp: setting `model_path`: {' '.join(str(error).splitlines())}", err=True)
        # What could not be read now, because it is away, may be there at the next start.
        sys.exit(1 if isinstance(error.__cause__, OSError) and may_pass(error.__cause__) else 2)
    except StreamFpError as error:
        click.echo(f"stream-fp: {error}", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
