"""What keeps us from the brokers: knocks once more, at one broker after another, and names the setting to mend.

The client tries all brokers and in the end says only that none let it in. What one of them answered is lost by then.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any, Final

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import IllegalSaslStateError, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError

from stream_fp.config import Settings
from stream_fp.errors import ConfigError, ServiceError, StreamFpError
from stream_fp.kafka.clients import connection_of
from stream_fp.kafka.rights import lacking_right

__all__ = ["unreachable"]

#: At most, for each broker.
_KNOCK_S: Final = 5.0


async def unreachable(settings: Settings, failure: BaseException, *, hint: str = "") -> StreamFpError:
    """Find out why the brokers cannot be reached.

    Parameters
    ----------
    settings : Settings
    failure : BaseException
        What the client said.
    hint : str
        What else may help, for the sentence.

    Returns
    -------
    StreamFpError
        A `ConfigError` where it is clear which setting is wrong; to be raised from `failure`.
    """
    if (lacking := lacking_right(failure, settings)) is not None:
        return ServiceError(lacking)
    connection = connection_of(settings)
    connection["request_timeout_ms"] = min(connection["request_timeout_ms"], int(_KNOCK_S * 1000))
    servers = connection.pop("bootstrap_servers")
    del connection["metadata_max_age_ms"]
    for host, port, _ in collect_hosts(servers):
        error = await _knock(host, port, connection)
        if error is not None and (found := _setting_at_fault(settings, f"{host}:{port}", error)) is not None:
            return found
    return ServiceError(
        f"cannot reach Kafka at {settings.bootstrap_servers} with {settings.security_protocol} (settings "
        f"`bootstrap_servers` and `security_protocol`{hint}): {str(failure) or type(failure).__name__}"
    )


async def _knock(host: str, port: int, connection: dict[str, Any]) -> Exception | None:
    try:
        async with asyncio.timeout(_KNOCK_S):
            conn = await create_conn(host, port, **connection)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what keeps us out
        return error
    conn.close()
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _setting_at_fault(settings: Settings, server: str, failure: Exception) -> ConfigError | ServiceError | None:
    with_tls = settings.security_protocol.endswith("SSL")
    for error in _chain(failure):
        match error:
            case SaslAuthenticationFailed():
                return ConfigError(
                    "sasl_username",
                    f"{server} refuses user `{settings.sasl_username}` with {settings.sasl_mechanism}: wrong name or "
                    "password (settings `sasl_password` or `sasl_password_file`)",
                )
            case UnsupportedSaslMechanismError():
                return ConfigError("sasl_mechanism", f"{server} does not take {settings.sasl_mechanism}")
            case ssl.SSLCertVerificationError():
                return _untrusted(settings, server, error)
            case ssl.SSLError() if "ALERT" in str(error.reason) or "certificate required" in str(error):
                return ConfigError(
                    "ssl_cert_file",
                    f"{server} does not take {'our' if settings.ssl_cert_file else 'a client without a'} certificate: "
                    f"{error.reason}",
                )
            case ssl.SSLError():
                return ConfigError(
                    "security_protocol", f"{server} does not speak TLS, which {settings.security_protocol} needs"
                )
            case IllegalSaslStateError():
                return ConfigError(
                    "security_protocol", f"{server} asks for no user name, got {settings.security_protocol}"
                )
            case asyncio.IncompleteReadError() | ConnectionResetError() | TimeoutError() if not with_tls:
                if isinstance(error, TimeoutError) and not isinstance(failure, KafkaError):
                    continue  # nobody is there
                return ConfigError(
                    "security_protocol",
                    f"{server} closes the connection, as a broker does that asks for TLS or for a user name; got "
                    f"{settings.security_protocol}",
                )
            case _:
                continue
    return None


def _untrusted(settings: Settings, server: str, error: ssl.SSLCertVerificationError) -> ConfigError | ServiceError:
    why = error.verify_message
    if "mismatch" in why:
        return ConfigError("bootstrap_servers", f"the certificate of {server} is for another name: {why}")
    if "expired" in why or "not yet valid" in why:
        return ServiceError(f"the certificate of {server} cannot be trusted: {why}. Renew it at the broker")
    trusted = f"the authorities in {settings.ssl_ca_file}" if settings.ssl_ca_file else "the system's authorities"
    return ConfigError("ssl_ca_file", f"the certificate of {server} is not one of {trusted}: {why}")
