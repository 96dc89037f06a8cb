"""What makes a well-formed message usable: the checks that types cannot express.

Pure. Whatever fails here becomes a dead letter with the sentence that is built here.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from stream_fp.errors import RecordInvalidError
from stream_fp.messages import Message

__all__ = ["MAX_INTENSITY", "MAX_PRICE", "MAX_SESSION_ID_LENGTH", "MIN_PRICE", "checked_event", "event_fault",
           "session_id_of"]  # fmt: skip

#: Prices and intensities beyond these are no market data; within them no feature can leave the range of floats.
MIN_PRICE: Final = 1e-9
MAX_PRICE: Final = 1e12
MAX_INTENSITY: Final = 1e9
#: Long enough for any instrument and venue in a session id, short enough for one file name.
MAX_SESSION_ID_LENGTH: Final = 200


def session_id_of(key: bytes) -> str:
    """Return the session id that a record key holds.

    Raises
    ------
    RecordInvalidError
        When the key is no UTF-8, too long, or has characters that cannot be printed.
    """
    try:
        session_id = key.decode()
    except UnicodeDecodeError as error:
        raise RecordInvalidError(f"expected the session id in UTF-8 as record key, got {key[:32]!r}") from error
    if len(session_id) > MAX_SESSION_ID_LENGTH or not session_id.isprintable():
        raise RecordInvalidError(
            f"expected a session id of at most {MAX_SESSION_ID_LENGTH} printable characters, "
            f"got {len(session_id)}: {session_id[:64]!r}"
        )
    return session_id


def checked_event(message: Message) -> tuple[str, float | None, str | float]:
    """Return event type, price and time stamp of an event.

    Raises
    ------
    RecordInvalidError
        When one of them is missing, or a number is out of bounds (`event_fault`).
    """
    if (fault := event_fault(message)) is not None:
        raise fault
    # Real recordings write 0 where an event is about no price.
    return message.event_type, message.price or None, message.timestamp  # type: ignore[return-value]


def event_fault(message: Message) -> RecordInvalidError | None:
    """Return what keeps an event from being used: something is missing, or a number is out of bounds; else None.

    Not raised, because of floods of such events: to raise takes longer than to look.
    """
    event_type, price, stamp, intensity = message.event_type, message.price, message.timestamp, message.intensity
    if event_type is None or price is UNSET or stamp is None:
        absent = [name for name in ("timestamp", "event_type") if getattr(message, name) is None]
        absent += ["price"] if price is UNSET else []
        return RecordInvalidError(f"expected an event with `{'`, `'.join(absent)}`, got one without - at `$`")
    if price is not None and not MIN_PRICE <= price <= MAX_PRICE and price != 0:
        return RecordInvalidError(
            f"expected a price in [{MIN_PRICE:g}, {MAX_PRICE:g}], or null or 0 for none, got {price:g} - at `$.price`"
        )
    if intensity is not None and not -MAX_INTENSITY <= intensity <= MAX_INTENSITY:
        return RecordInvalidError(
            f"expected an intensity in [-{MAX_INTENSITY:g}, {MAX_INTENSITY:g}] or null, got {intensity:g} "
            "- at `$.intensity`"
        )
    return None
