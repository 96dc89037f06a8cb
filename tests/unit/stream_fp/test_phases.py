from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_fp import phases
from stream_fp.phases import ALIASES, N_PHASES, PHASES, UNKNOWN, phase_of


def test_phases_are_the_six_of_the_design_in_order() -> None:
    assert PHASES == (
        "fvg_interaction", "expansion_phase", "consolidation_phase",
        "retracement_event", "reversal_signal", "liquidity_sweep",
    )  # fmt: skip
    assert N_PHASES == UNKNOWN == 6


@pytest.mark.parametrize(("phase", "alias"), [(phase, alias) for phase in PHASES for alias in (phase, *ALIASES[phase])])
def test_every_alias_means_its_phase_in_every_spelling(phase: str, alias: str) -> None:
    spellings = (alias, alias.upper(), alias.replace("_", " ").title(), alias.replace("_", "-"), f"  {alias}\n")
    assert {PHASES[phase_of(spelling)] for spelling in spellings} == {phase}


def test_no_alias_belongs_to_two_phases() -> None:
    aliases = [alias for phase in PHASES for alias in (phase, *ALIASES[phase])]
    assert len(aliases) == len(set(aliases))


@pytest.mark.parametrize(
    ("event_type", "phase"),
    [
        ("expansion_higher_fpfvg_redelivery", "expansion_phase"),
        ("fvg_expansion", "fvg_interaction"),
        ("reversal point at the low", "reversal_signal"),
        ("liquidity_grab_london", "liquidity_sweep"),
        ("Fair-Value Gap filled", "fvg_interaction"),
    ],
)
def test_longest_known_leading_part_decides(event_type: str, phase: str) -> None:
    assert PHASES[phase_of(event_type)] == phase


@pytest.mark.parametrize(
    "event_type", ["", " ", "_", "___", "news_print", "expansionist", "my_expansion", "\x00", "扩张"]
)
def test_what_is_not_in_the_table_is_of_no_phase(event_type: str) -> None:
    assert phase_of(event_type) == UNKNOWN


@given(event_type=st.text(max_size=300))
def test_any_text_gets_a_code_and_gets_it_again(event_type: str) -> None:
    code = phase_of(event_type)
    assert 0 <= code <= UNKNOWN
    assert phase_of(event_type) == code


def test_memory_for_spellings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = phases._PhaseCodes()
    monkeypatch.setattr(phases, "PHASE_CODES", remembered)
    for i in range(6_000):
        assert phase_of(f"expansion_{i}") == PHASES.index("expansion_phase")
    assert len(remembered) == 4096
    assert phase_of("reversal_after_all_is_full") == PHASES.index("reversal_signal")


def test_long_texts_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = phases._PhaseCodes()
    monkeypatch.setattr(phases, "PHASE_CODES", remembered)
    assert phase_of("expansion_" + "x" * 100_000) == PHASES.index("expansion_phase")
    assert remembered == {}
