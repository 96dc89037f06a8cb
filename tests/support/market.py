"""Bars of a market that never was, seeded, and files of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from offline.bars import MarketBars
from offline.measures import Bars
from stream_fp.times import MINUTE_US, parse_timestamp_us


def random_market(
    seed: int,
    n_bars: int,
    *,
    start: str = "2025-07-01T04:00:00",
    bar_minutes: int = 1,
    holes: Mapping[int, int] | None = None,
    steps: Mapping[int, float] | None = None,
) -> MarketBars:
    """Draw bars from `start` (UTC) on.

    `holes` are minutes left out before a bar, `steps` points by which the price jumps before a bar opens.
    """
    rng = np.random.default_rng(seed)
    wait = np.full(n_bars, bar_minutes * MINUTE_US)
    jump = np.zeros(n_bars)
    for bar, minutes in (holes or {}).items():
        wait[bar] += minutes * MINUTE_US
    for bar, points in (steps or {}).items():
        jump[bar] = points
    first_us = parse_timestamp_us(start, dt.UTC)
    assert first_us is not None
    change = rng.standard_t(4, n_bars)
    close = np.round((20_000 + np.cumsum(change + jump)) / 0.25) * 0.25
    opened = np.concatenate((close[:1], close[:-1])) + np.where(jump != 0, np.round(jump / 0.25) * 0.25, 0.0)
    up, down = np.round(2 * np.abs(rng.standard_normal((2, n_bars)))) / 4
    return MarketBars(
        open_us=first_us + np.cumsum(wait) - wait[0],
        bar_us=bar_minutes * MINUTE_US,
        bars=Bars(open=opened, high=np.maximum(opened, close) + up, low=np.minimum(opened, close) - down, close=close),
        n_read=n_bars,
        dropped={},
        n_unsorted=0,
    )


def first_bars(market: MarketBars, n_bars: int) -> MarketBars:
    """Return the first bars of a market: what was known when the last of them closed."""
    return MarketBars(
        open_us=market.open_us[:n_bars],
        bar_us=market.bar_us,
        bars=market.bars.between(0, n_bars),
        n_read=n_bars,
        dropped={},
        n_unsorted=0,
    )


def frame_of(market: MarketBars, times: Sequence[object] | pl.Series | None = None) -> pl.DataFrame:
    """Return the table of a market's bars; times are datetimes in UTC unless others are given."""
    in_utc = pl.Series(market.open_us).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    bars = market.bars
    return pl.DataFrame({
        "timestamp": in_utc if times is None else times,
        "open": bars.open, "high": bars.high, "low": bars.low, "close": bars.close,
    })  # fmt: skip


def write_frame(frame: pl.DataFrame, path: Path) -> Path:
    """Write a table in the format of the file's name."""
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path)
    return path


def utc(text: str) -> int:
    """Return a time stamp in microseconds since 1970; UTC where it has no offset."""
    moment_us = parse_timestamp_us(text, dt.UTC)
    assert moment_us is not None
    return moment_us
