"""The judge on made-up cases: every kind of divergence is seen, and none where there is none."""

from __future__ import annotations

import pytest

from stream_fp.messages import encode_prediction
from tests.chaos.verdict import Report, compare, compare_sidecars, identity_of
from tests.support.builders import make_prediction

A30, A50, B30 = (
    encode_prediction(make_prediction(session_id=session_id, checkpoint_pct=checkpoint_pct))
    for session_id, checkpoint_pct in (("A", 30.0), ("A", 50.0), ("B", 30.0))
)
A30_CHANGED = encode_prediction(make_prediction(session_id="A", checkpoint_pct=30.0, notes=["other"]))
Letter = tuple[tuple[int, int], bytes | None, bytes | None]
DEAD: dict[tuple[int, int], tuple[bytes | None, bytes | None]] = {(0, 7): (b"A", b"{"), (3, 7): (None, b"[")}
LETTERS: list[Letter] = [((0, 7), b"A", b"{"), ((3, 7), None, b"[")]


def judged(published: list[bytes], letters: list[Letter] = LETTERS) -> dict[str, int]:
    report = Report()
    keyed = [(identity_of(value)[0].encode(), value) for value in published]
    compare(report, expected=[A30, A50, B30], published=keyed, expected_dead=DEAD, dead=letters)
    return {kind: len(found) for kind, found in report.divergences.items()}


def test_same_predictions_and_dead_letters_in_any_order_are_no_divergence() -> None:
    assert judged([B30, A50, A30], LETTERS[::-1]) == {}


@pytest.mark.parametrize(
    ("published", "kinds"),
    [
        ([A30, B30], {"predictions lost": 1}),
        ([A30, A50, B30, A30, A30], {"predictions repeated": 2}),
        ([A30_CHANGED, A50, B30], {"predictions lost": 1, "predictions that no replay gives": 1}),
        ([A30, A50, B30, A30_CHANGED], {"predictions that no replay gives": 1, "predictions repeated": 1}),
        ([], {"predictions lost": 3}),
    ],
)
def test_difference_in_predictions_is_told(published: list[bytes], kinds: dict[str, int]) -> None:
    assert judged(published) == kinds


@pytest.mark.parametrize(
    ("letters", "kinds"),
    [
        (LETTERS[:1], {"dead letters lost": 1}),
        (LETTERS + LETTERS[:1], {"dead letters repeated": 1}),
        ([*LETTERS, ((1, 1), b"A", b"{}")], {"dead letters without cause": 1}),
        ([LETTERS[0], ((3, 7), b"key", b"[")], {"dead letters changed": 1}),
    ],
)
def test_difference_in_dead_letters_is_told(letters: list[Letter], kinds: dict[str, int]) -> None:
    assert judged([A30, A50, B30], letters) == kinds


def test_prediction_under_another_key_is_told() -> None:
    report = Report()
    compare(report, expected=[A30], published=[(b"B", A30)], expected_dead=DEAD, dead=LETTERS)
    assert list(report.divergences) == ["predictions under another key"]


def test_run_with_nothing_to_compare_did_not_hold() -> None:
    report = Report()
    compare(report, expected=[], published=[], expected_dead={}, dead=[])
    assert report.verdict.startswith("VERDICT: DIVERGED")


@pytest.mark.parametrize(
    ("sidecars", "kinds"),
    [
        ({"A": A50, "B": B30}, {}),
        ({"A": A30, "B": B30}, {"sidecars that are not the last prediction": 1}),
        ({"A": A50[:-1], "B": B30}, {"sidecars that are not the last prediction": 1}),
        ({"A": A50}, {"sidecars missing": 1}),
        ({"A": A50, "B": B30, "C": b"{"}, {"sidecars without a prediction": 1}),
    ],
)
def test_sidecar_has_to_be_the_last_prediction(sidecars: dict[str, bytes | None], kinds: dict[str, int]) -> None:
    report = Report()
    compare_sidecars(report, sidecars, [A50, A30, B30])
    assert {kind: len(found) for kind, found in report.divergences.items()} == kinds


def test_verdict_says_whether_it_held() -> None:
    report = Report()
    assert report.verdict.startswith("VERDICT: exactly once")
    report.note("predictions lost", [("A", 30.0, "1")])
    assert report.verdict == "VERDICT: DIVERGED - 1 predictions lost"
    assert report.lines() == ["predictions lost (1): ('A', 30.0, '1')"]
