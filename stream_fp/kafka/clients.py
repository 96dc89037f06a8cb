"""Kafka clients as the settings say: one place for addresses, security and time-outs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from stream_fp.config import Settings
from stream_fp.errors import ConfigError

__all__ = ["close_within", "new_admin", "new_consumer", "new_producer", "new_reader"]

_logger = logging.getLogger(__name__)


def new_consumer(settings: Settings) -> AIOKafkaConsumer:
    """Return a consumer of the group, not started; it commits nothing by itself and resets to nowhere by itself."""
    return AIOKafkaConsumer(
        group_id=settings.group_id,
        enable_auto_commit=False,
        # Where to begin is decided here, with the committed note in hand, never by the client.
        auto_offset_reset="none",
        isolation_level="read_committed",
        session_timeout_ms=int(settings.session_timeout_s * 1000),
        heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 3),
        max_partition_fetch_bytes=max(2**20, 2 * settings.max_record_bytes),
        **_connection(settings),
    )


def new_reader(settings: Settings, *, isolation_level: str = "read_committed") -> AIOKafkaConsumer:
    """Return a consumer of no group, not started: it reads what it is pointed at and commits nothing."""
    return AIOKafkaConsumer(
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=isolation_level,
        max_partition_fetch_bytes=max(2**20, 2 * settings.max_record_bytes),
        **_connection(settings),
    )


def new_producer(settings: Settings, transactional_id: str | None) -> AIOKafkaProducer:
    """Return a producer, not started; idempotent in any case, transactional where it has an id."""
    return AIOKafkaProducer(
        transactional_id=transactional_id,
        transaction_timeout_ms=int(settings.transaction_timeout_s * 1000),
        enable_idempotence=settings.delivery == "exactly-once",
        acks="all",
        max_request_size=settings.max_request_bytes,
        max_batch_size=2**17,
        # Dead letters may be large and the broker's limit is on what travels.
        compression_type="gzip",
        **_connection(settings),
    )


def new_admin(settings: Settings) -> AIOKafkaAdminClient:
    """Return an admin client, not started."""
    return AIOKafkaAdminClient(**_connection(settings))


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


def _connection(settings: Settings) -> dict[str, Any]:
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
            context.load_cert_chain(
                settings.ssl_cert_file, settings.ssl_key_file, settings.ssl_key_password.reveal() or None
            )
        except OSError as error:
            raise ConfigError("ssl_cert_file", f"{settings.ssl_cert_file}: {error}") from error
    return context
