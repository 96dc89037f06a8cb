"""What a broker does not allow, in words: the right that is lacking, and what it is on."""

from __future__ import annotations

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from stream_fp.config import Settings

__all__ = ["lacking_right"]


def lacking_right(error: BaseException, settings: Settings) -> str | None:
    """Say what the broker would have to allow.

    Parameters
    ----------
    error : BaseException
        What the client raised.
    settings : Settings
        Name topics and group.

    Returns
    -------
    str or None
        None where the error is of another kind.
    """
    match error:
        case GroupAuthorizationFailedError():
            right = f"READ on group `{settings.group_id}`"
        case TransactionalIdAuthorizationFailed():
            right = f"WRITE on the transactional ids that begin with `{settings.group_id}-`"
        case TopicAuthorizationFailedError():
            right = _on_topic(error, settings)
        case _:
            return None
    return f"the broker does not allow it: this user needs {right}"


def _on_topic(error: KafkaError, settings: Settings) -> str:
    # The client names topics now as a set, now in a sentence; of names that begin alike, the longest is meant.
    said = str(error)
    rights = {
        settings.input_topic: "READ",
        settings.output_topic: "READ and WRITE",
        settings.dead_letter_topic: "WRITE",
    }
    topic = max((topic for topic in rights if topic in said), key=len, default="")
    return f"{rights[topic]} on topic `{topic}`" if topic else f"READ or WRITE on a topic: {said}"
