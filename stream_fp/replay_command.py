"""``stream-fp replay``: the options, what they may not be together, and whose work follows.

The work itself is in `stream_fp.replay`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from stream_fp.config import Settings
from stream_fp.errors import ConfigError
from stream_fp.options import ENGINE_SETTINGS, TOPIC_SETTINGS, setting_options, settings_from

if TYPE_CHECKING:
    from stream_fp.kafka.ranges import Bound

__all__ = ["replay_command"]

_SETTINGS: Final = (*ENGINE_SETTINGS, *TOPIC_SETTINGS)
#: By the time stamps of Kafka: as long as a session may be silent and stay open, and a day.
_LOOK_BACK_DAYS: Final = 4.0
#: Of a settings file: names files and folders of what came of it.
_NAME: Final = re.compile(r"[\w][\w.\-]*")


def _bounds(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[Bound, ...]:
    from stream_fp.kafka.ranges import parse_bound  # noqa: PLC0415 - other commands start without it

    try:
        return tuple(parse_bound(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _speed(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[float | None] | None:
    """Read a speed; in a tuple, because that of `max` is None."""
    if text is None:
        return None
    from stream_fp.replay.pace import parse_speed  # noqa: PLC0415 - as above

    try:
        return (parse_speed(text),)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("replay")
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path),
    default=None,
    help="File or folder of sessions; without it, the input topic is replayed.",
)
@click.option("--topic", "topics", multiple=True, metavar="TEXT", help="Topic to replay instead; may be repeated.")
@click.option(
    "--from",
    "from_",
    multiple=True,
    metavar="BOUND",
    callback=_bounds,
    help="Topics: begin at this Kafka time (2025-07-29T14:30:00Z) or offset (@1200, topic@1200, topic[2]@1200), "
    "inclusive. May be repeated, for several partitions.",
)
@click.option(
    "--to", multiple=True, metavar="BOUND", callback=_bounds, help="Topics: end before this, written likewise."
)
@click.option(
    "--look-back",
    "look_back_days",
    type=click.FloatRange(min=0),
    default=_LOOK_BACK_DAYS,
    show_default=True,
    metavar="DAYS",
    help="Read so much before --from, in silence, for sessions that began there.",
)
@click.option(
    "--workers",
    "n_workers",
    type=click.IntRange(min=1),
    default=None,
    show_default="one a core, where that is worth it",
    help="Processes that share partitions or files. The result is the same for any number.",
)
@click.option(
    "--backend",
    metavar="[local|dask|ray]",
    default="local",
    show_default=True,
    help="Where they run: here, or on a cluster that sees the same files.",
)
@click.option("--scheduler", default=None, metavar="ADDRESS", help="Of the cluster, such as tcp://10.0.0.1:8786.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=None, help="File for predictions.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for outcomes (JSON Lines, Parquet), figures, and a page that shows them.",
)
@click.option(
    "--outcomes/--no-outcomes",
    default=None,
    help="Find out what came of each prediction, and judge; by default with --output or --report.",
)
@click.option("--force", is_flag=True, help="Replace the report that the folder holds.")
@click.option("--resume", is_flag=True, help="Go on with a replay that was stopped.")
@click.option(
    "--compare", is_flag=True, help="Replay once with each of the SETTINGS files, and show them side by side."
)
@click.option(
    "--output-topic",
    default=None,
    metavar="TEXT",
    help="Publish the predictions to this topic; with --speed, the records themselves.",
)
@click.option(
    "--speed",
    callback=_speed,
    default=None,
    metavar="SPEED",
    help="Predict nothing, but publish the records to --output-topic at 1x, 10x … their pace in event time, or max.",
)
@setting_options(_SETTINGS)
@click.argument("settings_files", nargs=-1, metavar="[SETTINGS]...", type=click.Path(path_type=Path, dir_okay=False))
def replay_command(
    *,
    config: Path | None,
    compare: bool,
    settings_files: tuple[Path, ...],
    topics: tuple[str, ...],
    outcomes: bool | None,
    speed: tuple[float | None] | None,
    **options: Any,  # noqa: ANN401 - one per option and per setting
) -> int:
    """Run recorded sessions, of topics or of files, through the engine.

    Predictions come as JSON Lines: to --output, else into the folder of --report, else to standard output. Reading a
    topic joins no group and commits nothing.
    """
    from stream_fp.replay.perform import ReplayOptions, perform, rehearse  # noqa: PLC0415 - as above

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters is raised
    flags = {name: options.pop(name) for name in _SETTINGS}
    settings = settings_from(config, flags)
    wanted = ReplayOptions(
        topics=topics or (settings.input_topic,),
        with_outcomes=outcomes if outcomes is not None else bool(options["output"] or options["report"] or compare),
        **options,
    )
    named_topic = topics or flags["input_topic"] or (flags["bootstrap_servers"] and not wanted.output_topic)
    if wanted.source is not None and named_topic:
        raise click.UsageError("expected either --input or a topic, got both")
    if wanted.source is not None and (wanted.from_ or wanted.to):
        raise click.UsageError("--from and --to are for topics, not for files")
    _check_times(wanted.from_, wanted.to)
    if compare != bool(settings_files):
        raise click.UsageError(
            "--compare needs settings files: --compare A.toml B.toml"
            if compare
            else f"got unexpected {settings_files[0]}; settings files follow --compare, that of one replay is --config"
        )
    if wanted.resume and wanted.output is None and wanted.report is None:
        raise click.UsageError("--resume needs --output or --report: what was done lies beside them")
    if not wanted.with_outcomes and (wanted.report is not None or compare):
        raise click.UsageError("--report and --compare show outcomes; leave --no-outcomes out")
    if speed is None:
        variants = _variants(settings_files, flags) if compare else {"": settings}
        return perform(wanted, variants)
    if wanted.output_topic is None:
        raise click.UsageError("--speed needs --output-topic: the topic to publish the records to")
    if compare or wanted.output or wanted.report or wanted.resume:
        raise click.UsageError("with --speed nothing is predicted: leave --compare, --output, --report, --resume out")
    if wanted.n_workers or wanted.scheduler or wanted.backend != "local":
        raise click.UsageError(
            "with --speed one process here publishes in order: leave --workers, --backend, --scheduler out"
        )
    rehearse(wanted, settings, speed[0])
    return 0


def _check_times(from_: tuple[Bound, ...], to: tuple[Bound, ...]) -> None:
    for first in from_:
        for last in to:
            both = first.time_us is not None and last.time_us is not None
            if both and (first.time_us or 0) >= (last.time_us or 0):
                raise click.BadParameter("expected a time after that of --from", param_hint="--to")


def _variants(files: tuple[Path, ...], flags: dict[str, Any]) -> dict[str, Settings]:
    """Load the settings of each file; flags win over all of them."""
    found: dict[str, Settings] = {}
    for path in files:
        if not _NAME.fullmatch(path.stem) or path.stem.endswith(".json"):
            raise ConfigError("compare", f"expected file names of letters, digits, dots, - and _, got {path.name!r}")
        if path.stem in found:
            raise ConfigError("compare", f"expected files of different names, got `{path.stem}` twice")
        found[path.stem] = settings_from(path, flags)
    if len(found) == 1:
        raise ConfigError("compare", f"expected at least two settings files, got {files[0]} alone")
    first = next(iter(found.values()))
    for name, settings in found.items():
        for place in TOPIC_SETTINGS:
            if getattr(settings, place) != getattr(first, place):
                raise ConfigError(
                    place, f"expected the same in all settings files, since records are read once; {name} differs"
                )
    return found
