"""Options that narrow sessions down to a period, shared by the commands."""

from __future__ import annotations

from datetime import date

import click

__all__ = ["check_period", "iso_date"]


def iso_date(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Check a date given as an option (a callback of click)."""
    if value is None:
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError as error:
        raise click.BadParameter(f"expected a date such as 2025-01-31, got {value!r}") from error


def check_period(first: str | None, last: str | None) -> None:
    """Refuse a period that ends before it begins.

    Raises
    ------
    click.BadParameter
    """
    if first is not None and last is not None and first > last:
        raise click.BadParameter(f"expected a date up to that of --until, got {first} and {last}", param_hint="--from")
