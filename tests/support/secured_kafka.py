"""A real Kafka that asks who is there: TLS, client certificates, SCRAM and PLAIN, and an authorizer that allows little.

One node with a listener for each way in. Over the plain one, which only the tests use, anybody may do anything.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.local_kafka import LocalKafka, _free_ports

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CLIENT", "KEY_PASSWORD", "PASSWORD", "USER", "Right", "SecuredKafka"]

USER: Final = "stream-fp-user"
PASSWORD: Final = "very-$ecret-words"  # noqa: S105 - of this broker alone
KEY_PASSWORD: Final = "other-$ecret-words"  # noqa: S105 - likewise
#: The name in the certificate of the client.
CLIENT: Final = "stream-fp-client"
_LISTENERS: Final = {"SCRAM": "SASL_SSL", "MUTUAL": "SSL", "EXPIRED": "SASL_SSL", "OPEN": "SASL_PLAINTEXT"}
_JAAS: Final = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class Right:
    """Something that somebody may do."""

    operation: AclOperation
    kind: ResourceType
    name: str
    is_prefix: bool = False

    def of(self, principal: str) -> AclBinding:
        """Return it as the broker wants it."""
        pattern = ResourcePatternType.PREFIXED if self.is_prefix else ResourcePatternType.LITERAL
        allow = AclPermissionType.ALLOW
        return AclBinding(self.kind, self.name, pattern, f"User:{principal}", "*", self.operation, allow)


@dataclass(kw_only=True)
class SecuredKafka:
    """The broker and the files that a client needs; `folder` takes all of them."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        authority, stranger = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca))
        stranger.cert_pem.write_to_path(str(self.folder / "stranger.pem"))
        server = self._store(authority.issue_cert("127.0.0.1"), "server.pem")
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        expired = self._store(authority.issue_cert("127.0.0.1", not_after=yesterday), "expired.pem")
        client = authority.issue_cert(f"{CLIENT}.local", common_name=CLIENT)
        (self.folder / "client.pem").write_bytes(b"".join(pem.bytes() for pem in client.cert_chain_pems))
        key = load_pem_private_key(client.private_key_pem.bytes(), None)
        locked = BestAvailableEncryption(KEY_PASSWORD.encode())
        (self.folder / "client.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
        kafka = LocalKafka(is_brief=True)
        self._kafka = kafka
        (node,) = kafka._nodes.values()
        self.ports = dict(zip(_LISTENERS, _free_ports(len(_LISTENERS)), strict=True))
        names = "".join(f",{name}://127.0.0.1:{port}" for name, port in self.ports.items())
        map_ = "".join(f",{name}:{protocol}" for name, protocol in _LISTENERS.items())
        plain = f'{_JAAS}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        scram = f"{_JAAS}.scram.ScramLoginModule required;"
        kafka._settings |= {
            "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}{names}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}{names}",
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{map_}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(server),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
            "listener.name.expired.ssl.keystore.location": str(expired),
            "listener.name.mutual.ssl.client.auth": "required",
            # Of the name in a certificate, the common name is who it is.
            "ssl.principal.mapping.rules": r"RULE:^CN=([^,]+).*$/$1/,DEFAULT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        } | {
            f"listener.name.{name}.{setting}": text
            for name in ("scram", "expired", "open")
            for setting, text in (
                ("sasl.enabled.mechanisms", "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN"),
                ("plain.sasl.jaas.config", plain),
                ("scram-sha-256.sasl.jaas.config", scram),
                ("scram-sha-512.sasl.jaas.config", scram),
            )
        }
        self._stack.enter_context(kafka)
        self.admin = AdminClient({"bootstrap.servers": self.plain})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            change = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            for done in self.admin.alter_user_scram_credentials([change]).values():
                done.result(20)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def ca(self) -> Path:
        """Certificate of the authority that vouches for the broker."""
        return self.folder / "ca.pem"

    @property
    def plain(self) -> str:
        """Bootstrap server at which anybody may do anything."""
        return self._kafka.bootstrap_servers

    def at(self, listener: str) -> str:
        """Return the bootstrap server of a listener."""
        return f"127.0.0.1:{self.ports[listener]}"

    def allow(self, principal: str, rights: Iterable[Right]) -> None:
        """Allow something to somebody."""
        for done in self.admin.create_acls([right.of(principal) for right in rights]).values():
            done.result(20)

    def _store(self, cert: trustme.LeafCert, name: str) -> Path:
        key = load_pem_private_key(cert.private_key_pem.bytes(), None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.folder / name
        path.write_bytes(pem + b"".join(part.bytes() for part in cert.cert_chain_pems))
        return path
