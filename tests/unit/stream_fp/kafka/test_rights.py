"""What a broker does not allow is said by the topic that is meant, whatever topics are called."""

from __future__ import annotations

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from stream_fp.config import Settings
from stream_fp.kafka.rights import lacking_right


@pytest.mark.parametrize(("denied", "right"), [("fp-in", "READ"), ("fp", "READ and WRITE"), ("fp-in-dlq", "WRITE")])
@pytest.mark.parametrize("sentence", [False, True])
def test_topic_that_is_meant_is_named(denied: str, right: str, *, sentence: bool) -> None:
    settings = Settings(input_topic="fp-in", output_topic="fp", dead_letter_topic="fp-in-dlq")
    error = TopicAuthorizationFailedError(f"creating topic {denied}" if sentence else {denied})
    said = lacking_right(error, settings)
    assert said is not None
    assert said.endswith(f"needs {right} on topic `{denied}`")


def test_other_errors_are_not_of_rights() -> None:
    assert lacking_right(TimeoutError(), Settings()) is None
