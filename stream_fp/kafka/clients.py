"""Kafka clients as the settings say: one place for addresses, security and time-outs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from stream_fp.config import Settings
from stream_fp.errors import ConfigError
from stream_fp.kafka.consumer import Consumer

__all__ = ["close_within", "connection_of", "new_admin", "new_consumer", "new_producer", "new_reader"]

_logger = logging.getLogger(__name__)

#: Of producers. Transactions one right after another took 113 ms each with the client's 100 ms, and 21 with 10. It is
#: also how often the client repeats whatever else has failed, until the transaction's time is over: hence no less.
_RETRY_BACKOFF_MS: Final = 10
#: Fetched of a partition at once, and a record that is larger all the same. It is decoded at once, while nothing else
#: has its turn: that takes 2 ms where it is not compressed. Speed is the same from 128 KiB to 2 MiB.
_FETCH_BYTES: Final = 2**19
#: A consumer that takes nothing for so many times `stall_exit_s` leaves its group: later than the service ends by
#: itself, or it would stay behind without partitions, and nobody would know that records wait.
_POLL_INTERVAL: Final = 2
_MAX_INT32: Final = 2**31 - 1


def new_consumer(settings: Settings) -> Consumer:
    """Return a consumer of the group, not started; it commits nothing by itself and resets to nowhere by itself."""
    return Consumer(
        group_id=settings.group_id,
        enable_auto_commit=False,
        # Where to begin is decided here, with the committed note in hand, never by the client.
        auto_offset_reset="none",
        isolation_level="read_committed",
        session_timeout_ms=int(settings.session_timeout_s * 1000),
        heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 3),
        max_poll_interval_ms=min(int(_POLL_INTERVAL * settings.stall_exit_s * 1000), _MAX_INT32),
        max_partition_fetch_bytes=_FETCH_BYTES,
        **connection_of(settings),
    )


def new_reader(settings: Settings, *, isolation_level: str = "read_committed") -> Consumer:
    """Return a consumer of no group, not started: it reads what it is pointed at and commits nothing."""
    return Consumer(
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=isolation_level,
        max_partition_fetch_bytes=_FETCH_BYTES,
        **connection_of(settings),
    )


def new_producer(
    settings: Settings, transactional_id: str | None, *, batch_bytes: int = 2**17, compress: bool = False
) -> AIOKafkaProducer:
    """Return a producer, not started; idempotent in any case, transactional where it has an id.

    Without compression a prediction takes 2 kB instead of 0.7, and a tenth less of all the time that it takes.
    """
    return AIOKafkaProducer(
        transactional_id=transactional_id,
        transaction_timeout_ms=int(settings.transaction_timeout_s * 1000),
        enable_idempotence=settings.delivery == "exactly-once",
        acks="all",
        max_request_size=settings.max_request_bytes,
        max_batch_size=batch_bytes,
        compression_type="gzip" if compress else None,
        # A transaction that begins before the broker has written the markers of the one before is told to come again.
        # The client then waits for so long, by default 100 ms, with everything that is due.
        retry_backoff_ms=_RETRY_BACKOFF_MS,
        **connection_of(settings),
    )


def new_admin(settings: Settings) -> AIOKafkaAdminClient:
    """Return an admin client, not started."""
    return AIOKafkaAdminClient(**connection_of(settings))


async def close_within(close: Callable[[], Awaitable[None]], budget_s: float) -> None:
    """Close a client within a time; what it has to say in the end changes nothing any more."""
    closing = asyncio.ensure_future(close())
    _, late = await asyncio.wait({closing}, timeout=budget_s)
    if late:
        closing.cancel()
        await asyncio.wait({closing})
    # A client without a broker may end by a cancellation of its own making.
    if not closing.cancelled() and (error := closing.exception()) is not None:
        _logger.warning("closing a Kafka client: %r", error)


def connection_of(settings: Settings) -> dict[str, Any]:
    """Return what all clients are made with: addresses, security and time-outs.

    Raises
    ------
    ConfigError
        When a certificate, key or password cannot be read.
    """
    connection: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.group_id,
        # A topic that was deleted and made anew is noticed within so long.
        "metadata_max_age_ms": 30_000,
        "request_timeout_ms": int(settings.request_timeout_s * 1000),
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.startswith("SASL"):
        connection |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_secret(),
        }
    if settings.security_protocol.endswith("SSL"):
        connection["ssl_context"] = _ssl_context(settings)
    return connection


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file or None)
    except OSError as error:
        raise ConfigError("ssl_ca_file", f"{settings.ssl_ca_file}: {error}") from error
    if settings.ssl_cert_file:
        try:
            # Called where the key is locked; without it, OpenSSL would ask on the terminal.
            context.load_cert_chain(settings.ssl_cert_file, settings.ssl_key_file, lambda: _key_password(settings))
        except OSError as error:
            raise ConfigError("ssl_cert_file", f"{settings.ssl_cert_file}: {error}") from error
    return context


def _key_password(settings: Settings) -> str:
    if secret := settings.ssl_key_secret():
        return secret
    raise ConfigError("ssl_key_password", f"{settings.ssl_key_file} is locked by a password, got none")
