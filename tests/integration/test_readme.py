"""The README's way to a topic of one's own, gone on a real broker."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

ROOT = Path(__file__).parents[2]


async def test_snippet_of_the_readme_makes_the_topic_and_publishes_by_session(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
        if "NewTopic" in block
    )
    body, call = code.rsplit("\n\n", 1)
    assert call.strip() == "asyncio.run(main())"
    names: dict[str, Any] = {}
    exec(compile(body, "README.md", "exec"), names)  # noqa: S102 - the README's own example
    (tmp_path / "build" / "demo").mkdir(parents=True)
    (tmp_path / "build" / "demo" / "live.jsonl").write_bytes(b'{"session_id":"A"}\n{"session_id":"B"}\n')
    monkeypatch.chdir(tmp_path)
    topic = f"readme-{uuid.uuid4().hex[:8]}"

    await names["main"](servers=broker, topic=topic)

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=broker, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found = [await consumer.getone() for _ in range(2)]
        assert len(consumer.assignment()) == 3
    finally:
        await consumer.stop()
    assert {(record.key, record.value) for record in found} == {
        (b"A", b'{"session_id":"A"}'),
        (b"B", b'{"session_id":"B"}'),
    }
