"""Everything stream_fp raises on purpose, in one tree.

::

    StreamFpError
    ├── ConfigError            (ValueError)         a setting is wrong; the start stops
    ├── ModelError
    │   ├── ModelNotFoundError (FileNotFoundError)  the artifact directory is not there
    │   ├── ModelLoadError     (RuntimeError)       an artifact is missing, damaged or tampered with
    │   └── FeatureDimensionError (ValueError)      the artifacts were built for other features
    ├── RecordError            (ValueError)         one record cannot be used; it becomes a dead letter
    │   ├── RecordDecodeError                       its bytes are not the JSON that is expected
    │   └── RecordInvalidError                      its JSON is well formed, but cannot be applied
    ├── DocumentError          (ValueError)         a file of sessions cannot be read
    └── ServiceError           (RuntimeError)       the service cannot go on
        ├── TopicMissingError                       a topic that must exist does not
        ├── OffsetLostError                         the topic no longer holds what the committed offset needs
        └── StalledError                            a partition makes no progress although records wait

Constructors take facts and build the sentence, so that the wording lives here alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "ConfigError",
    "DocumentError",
    "FeatureDimensionError",
    "ModelError",
    "ModelLoadError",
    "ModelNotFoundError",
    "OffsetLostError",
    "RecordDecodeError",
    "RecordError",
    "RecordInvalidError",
    "ServiceError",
    "StalledError",
    "StreamFpError",
    "TopicMissingError",
]


class StreamFpError(Exception):
    """Base of every error that stream_fp raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is made anew from its sentence, which is not what our constructors take: then a worker
        # process that raises one would bring down the whole pool instead.
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[StreamFpError], args: tuple[object, ...]) -> StreamFpError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigError(StreamFpError, ValueError):
    """Raised when a setting is wrong; mend the setting that the message names.

    Parameters
    ----------
    setting : str
        Name of the setting, as in the settings file.
    why : str
        What was expected and what came.
    source : str
        Where the value came from: a flag, an environment variable, a file.
    """

    def __init__(self, setting: str, why: str, *, source: str = "") -> None:
        super().__init__(f"setting `{setting}`{f' ({source})' if source else ''}: {why}")
        self.setting = setting
        self.source = source


class ModelError(StreamFpError):
    """Base of the errors about the artifacts of the offline library."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """Raised when the artifact directory does not exist; train it, or correct the path."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"Model path does not exist: {path}\n"
            "Please ensure the offline library has been built (Stage 2) before enabling online classification."
        )
        self.path = path


class ModelLoadError(ModelError, RuntimeError):
    """Raised when an artifact is missing, unreadable, malformed or has another hash; train it again."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Failed to load clustering artifacts: {why}\n"
            "Please verify the offline library build completed successfully."
        )


class FeatureDimensionError(ModelError, ValueError):
    """Raised when the artifacts hold vectors of another length than this version extracts."""

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(
            f"Feature dimension mismatch: expected {expected}D, got {got}D\n"
            "Please rebuild offline library with matching feature extraction configuration."
        )
        self.expected = expected
        self.got = got


class RecordError(StreamFpError, ValueError):
    """Base of what can be wrong with one record; such a record goes to the dead-letter topic."""

    stage = "apply"


class RecordDecodeError(RecordError):
    """Raised when a record's bytes are not the JSON message that is expected."""

    stage = "decode"


class RecordInvalidError(RecordError):
    """Raised when a well-formed message cannot be applied: no key, unknown kind, unusable value."""


class DocumentError(StreamFpError, ValueError):
    """Raised when a session document or a file of messages cannot be read.

    Parameters
    ----------
    where : str
        File, and line where it has lines.
    why : str
        What was expected and what came.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class ServiceError(StreamFpError, RuntimeError):
    """Raised when the service cannot go on; its process ends with this sentence and a status that is not 0."""


class TopicMissingError(ServiceError):
    """Raised when a topic that must exist does not; create it, or correct the setting."""

    def __init__(self, topic: str, setting: str) -> None:
        super().__init__(
            f"topic `{topic}` does not exist on the broker, or this user may not see it: create it, allow it "
            f"or correct the setting `{setting}`"
        )
        self.topic = topic


class OffsetLostError(ServiceError):
    """Raised when the topic no longer holds what the committed offset needs; choose with the setting `offset_lost`.

    Parameters
    ----------
    topic, partition : str, int
    why : str
        What was committed, and what is there.
    """

    def __init__(self, topic: str, partition: int, why: str) -> None:
        super().__init__(
            f'{topic}[{partition}]: {why}. Set `offset_lost = "earliest"` to go on from the oldest record, or '
            '"latest" from the newest'
        )
        self.topic = topic
        self.partition = partition


class StalledError(ServiceError):
    """Raised when a partition has made no progress for too long although records wait; a restart may help."""

    def __init__(self, stalled: Mapping[str, str], timeout_s: float) -> None:
        where = "; ".join(f"{name}: {why}" for name, why in stalled.items())
        super().__init__(
            f"giving up after {timeout_s:g} s (setting `stall_exit_s`), so that a supervisor may start the service "
            f"anew: {where}"
        )
