"""Options that say how many and at which checkpoints, shared by the commands that train."""

from __future__ import annotations

from typing import Final

import click

from stream_fp.config import MAX_CHECKPOINT_PCT, MIN_CHECKPOINT_PCT

__all__ = ["AUTO", "DEFAULT_CHECKPOINTS", "MAX_SEED", "archetype_count", "checkpoint_list"]

AUTO: Final = "auto"
DEFAULT_CHECKPOINTS: Final = "25,30,40,50"
MAX_SEED: Final = 2**32 - 1  # what scikit-learn takes


def checkpoint_list(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[float, ...]:
    """Read checkpoints given as an option, ascending and each once (a callback of click)."""
    found = set()
    for text in ",".join(values).split(","):
        try:
            checkpoint_pct = float(text)
        except ValueError as error:
            raise click.BadParameter(f"expected percentages such as {DEFAULT_CHECKPOINTS}, got {text!r}") from error
        # As the service has it: a model for another checkpoint would never be asked.
        if not MIN_CHECKPOINT_PCT <= checkpoint_pct <= MAX_CHECKPOINT_PCT:
            bounds = f"{MIN_CHECKPOINT_PCT:g} to {MAX_CHECKPOINT_PCT:g}"
            raise click.BadParameter(f"expected percentages from {bounds}, got {text!r}")
        found.add(checkpoint_pct)
    return tuple(sorted(found))


def archetype_count(_context: click.Context, _parameter: click.Parameter, value: str) -> int | None:
    """Read a number of archetypes; None is for ``auto`` (a callback of click)."""
    if value == AUTO:
        return None
    if not value.isdecimal() or int(value) < 2:
        raise click.BadParameter(f"expected a number of at least 2, or {AUTO}, got {value!r}")
    return int(value)
