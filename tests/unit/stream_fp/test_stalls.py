from __future__ import annotations

from stream_fp.stalls import StallDetector


def test_partition_that_moves_is_never_stalled() -> None:
    detector = StallDetector(10.0)
    for second in range(100):
        assert detector.observe({"t[0]": (second, 1000)}, float(second)) == {}
    assert detector.longest_s == 0.0


def test_partition_without_records_waiting_is_never_stalled() -> None:
    detector = StallDetector(10.0)
    for second in (0.0, 1000.0):
        assert detector.observe({"t[0]": (7, 7)}, second) == {}
    assert detector.longest_s == 0.0


def test_stall_is_told_with_place_and_time_and_ends_with_progress() -> None:
    detector = StallDetector(10.0)
    detector.observe({"t[0]": (5, 9), "t[1]": (5, 9)}, 0.0)
    found = detector.observe({"t[0]": (5, 9), "t[1]": (6, 9)}, 12.0)
    assert found == {"t[0]": "no progress for 12 s with 4 records waiting at offset 5"}
    assert detector.longest_s == 12.0
    assert detector.observe({"t[0]": (6, 9), "t[1]": (9, 9)}, 13.0) == {}
    assert detector.longest_s == 0.0


def test_time_counts_from_when_records_began_to_wait() -> None:
    detector = StallDetector(10.0)
    detector.observe({"t[0]": (5, 5)}, 0.0)
    assert detector.observe({"t[0]": (5, 6)}, 100.0) == {}
    assert detector.observe({"t[0]": (5, 6)}, 109.0) == {}
    assert detector.observe({"t[0]": (5, 6)}, 110.0)


def test_partition_taken_away_is_forgotten() -> None:
    detector = StallDetector(10.0)
    detector.observe({"t[0]": (5, 9)}, 0.0)
    detector.observe({}, 5.0)
    assert detector.observe({"t[0]": (5, 9)}, 12.0) == {}
