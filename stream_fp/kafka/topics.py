"""The topics that must be there before the service starts; the input topic is looked at, never touched."""

from __future__ import annotations

import logging

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from stream_fp.config import Settings
from stream_fp.errors import TopicMissingError

__all__ = ["create_topic", "ensure_topic", "ensure_topics", "topic_layouts"]

_logger = logging.getLogger(__name__)


async def ensure_topics(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, int]:
    """Check that the three topics exist, and create the two that are written where that is wanted.

    Returns
    -------
    dict of str to int
        Number of partitions by topic.

    Raises
    ------
    TopicMissingError
        When a topic is missing and may not be created.
    """
    layouts = await topic_layouts(admin)
    if settings.input_topic not in layouts:
        raise TopicMissingError(settings.input_topic, "input_topic")
    n_input, n_replicas = layouts[settings.input_topic]
    for setting, topic, configs in (
        ("output_topic", settings.output_topic, {}),
        ("dead_letter_topic", settings.dead_letter_topic, {"max.message.bytes": str(settings.max_request_bytes)}),
    ):
        if topic in layouts:
            continue
        if not settings.create_topics:
            raise TopicMissingError(topic, setting)
        # As many partitions and copies as the input has: what comes from it deserves no less.
        layouts[topic] = n_input, n_replicas
        await create_topic(admin, topic, layouts[topic], configs)
    return {topic: n for topic, (n, _) in layouts.items()}


async def ensure_topic(admin: AIOKafkaAdminClient, topic: str, *, like: str, setting: str, create: bool = True) -> int:
    """Return the number of partitions of a topic, which is created where it is missing.

    Parameters
    ----------
    admin : AIOKafkaAdminClient
    topic : str
    like : str
        Topic whose numbers of partitions and replicas a new one gets; one partition where that is missing too.
    setting : str
        That names `topic`, for the error.
    create : bool
        Whether it may be created.

    Raises
    ------
    TopicMissingError
        When it is missing and may not be created.
    """
    layouts = await topic_layouts(admin)
    if topic not in layouts:
        if not create:
            raise TopicMissingError(topic, setting)
        layouts[topic] = layouts.get(like, (1, -1))
        await create_topic(admin, topic, layouts[topic])
    return layouts[topic][0]


async def topic_layouts(admin: AIOKafkaAdminClient) -> dict[str, tuple[int, int]]:
    """Return number of partitions and of replicas by topic."""
    # Asking for all topics creates none, even where the broker creates what it is asked for by name.
    names = await admin.list_topics()
    described = await admin.describe_topics(names) if names else []
    return {
        topic["topic"]: (len(topic["partitions"]), max(len(p["replicas"]) for p in topic["partitions"]))
        for topic in described
        if topic["partitions"]
    }


async def create_topic(
    admin: AIOKafkaAdminClient, topic: str, layout: tuple[int, int], configs: dict[str, str] | None = None
) -> None:
    """Create a topic, or find that somebody just did.

    Parameters
    ----------
    admin : AIOKafkaAdminClient
    topic : str
    layout : tuple of int
        Number of partitions and of replicas.
    configs : dict of str to str, optional
    """
    n_partitions, n_replicas = layout
    response = await admin.create_topics([NewTopic(topic, n_partitions, n_replicas, topic_configs=configs or {})])
    for _, code, *_message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"creating topic {topic}")
    _logger.info("created topic %s with %d partitions", topic, n_partitions)
