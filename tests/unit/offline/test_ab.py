"""The A/B grid: what is judged lies after what is learned, and what is finished is kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from offline.ab import SCALERS, AbOptions, fingerprint, grid, judge_split, make_splits, run_grid
from offline.ab_compare import make_result
from offline.ab_parts import Choice, Part, PartFolder
from offline.ab_results import encode_result
from offline.dataset import Dataset, load_dataset
from offline.profiles import profile_weights
from offline.simulate import interleave, simulate_sessions
from offline.splits import EMBARGO_DAYS
from stream_fp.errors import ConfigError

OPTIONS = AbOptions(n_splits=2, n_archetypes=3, profile="pace", seed=3, n_jobs=1)
CHOICE = Choice(fingerprint="this run", profile="pace", n_archetypes=3)


class InterruptedRunError(Exception):
    """What ends a run between two tasks."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("simulated") / "sessions.jsonl"
    messages = interleave(simulate_sessions(150, seed=5))
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    return load_dataset(path, checkpoints_pct=(30.0, 50.0), n_jobs=1)


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """Folder and result of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("finished") / "ab"
    return path, result_of(dataset, OPTIONS, path)


def result_of(dataset: Dataset, options: AbOptions, path: Path) -> bytes:
    parts = run_grid(dataset, options, PartFolder(path, force=False))
    sides = [(split.past, split.future) for split in make_splits(dataset, options.n_splits)]
    return encode_result(make_result(dataset, parts, sides, options.seed))


def files_in(path: Path) -> dict[str, tuple[int, int]]:
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in (path / "parts").iterdir()}


def interrupt_after(path: Path, dataset: Dataset, n_tasks: int) -> None:
    def tell(_stage: str, n_done: int, _n_all: int) -> None:
        if n_done == n_tasks:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        run_grid(dataset, OPTIONS, PartFolder(path, force=False), tell)


def test_grid_has_every_meaning_once() -> None:
    cells = [cell for scaler in SCALERS for cell in grid(scaler)]
    assert len({cell.name for cell in cells}) == len(set(cells)) == len(cells) == 2 * (1 + 3 * 3 + 2 * 3)
    assert {cell.scaler for cell in cells} == {"standard", "robust"}
    centroid = {(c.metric, c.confidence) for c in cells if c.assignment == "prefix_centroid"}
    full = {(c.metric, c.confidence) for c in cells if c.assignment == "full_centroid"}
    assert {metric for metric, _ in centroid - full} == {"mahalanobis"}
    assert full < centroid
    assert all(c.metric is None and c.confidence is None for c in cells if c.assignment == "prefix_model")


def test_judged_sessions_lie_after_the_learned_ones_and_the_embargo(dataset: Dataset) -> None:
    found = make_splits(dataset, 3)
    days = dataset.days()
    assert len(found) == 3
    for split in found:
        assert days[split.past].max() + EMBARGO_DAYS < days[split.future].min()
    judged = np.concatenate([split.future for split in found])
    assert len(np.unique(judged)) == len(judged)


def test_judged_rows_are_those_of_the_future_that_reached_the_checkpoint(
    dataset: Dataset, finished: tuple[Path, bytes]
) -> None:
    folder = PartFolder(finished[0], force=False)
    for split in make_splits(dataset, OPTIONS.n_splits):
        part = folder.read(f"split-{split.number}-robust", Part)
        assert part is not None
        for judged in part.checkpoints:
            reached = np.intersect1d(dataset.prefixes[judged.checkpoint_pct].rows, split.future)
            assert judged.rows == reached.tolist()
            assert {len(scores.log_loss) for scores in [*judged.scores, judged.guess]} == {len(reached)}


def test_later_sessions_change_nothing_about_earlier_ones(dataset: Dataset) -> None:
    split = make_splits(dataset, 2)[0]
    middle = int(np.median(split.future))
    full = dataset.full.copy()
    full[middle:] = full[middle:][::-1] * 1.7
    prefixes = {}
    for checkpoint_pct, cut in dataset.prefixes.items():
        vectors = cut.vectors.copy()
        vectors[cut.rows >= middle] *= 1.7
        prefixes[checkpoint_pct] = dataclasses.replace(cut, vectors=vectors)
    other = dataclasses.replace(dataset, full=full, prefixes=prefixes)
    before, after = (judge_split(sessions, split, "standard", CHOICE, 0) for sessions in (dataset, other))
    assert before != after
    for one, two in zip(before.checkpoints, after.checkpoints, strict=True):
        n_kept = sum(row < middle for row in one.rows)
        assert n_kept > 10
        assert one.labels[:n_kept] == two.labels[:n_kept]
        for first, second in zip([*one.scores, one.guess], [*two.scores, two.guess], strict=True):
            assert first.is_right[:n_kept] == second.is_right[:n_kept]
            assert first.log_loss[:n_kept] == second.log_loss[:n_kept]
            assert first.confidence[:n_kept] == second.confidence[:n_kept]


def test_nearest_centroid_cell_does_as_scikit_learn_does(dataset: Dataset, finished: tuple[Path, bytes]) -> None:
    split = make_splits(dataset, OPTIONS.n_splits)[1]
    part = PartFolder(finished[0], force=False).read("split-2-standard", Part)
    assert part is not None
    weights = profile_weights("pace")
    scaler = StandardScaler().fit(dataset.full[split.past])
    past_full, future_full = (scaler.transform(dataset.full[rows]) * weights for rows in (split.past, split.future))
    kmeans = KMeans(n_clusters=3, n_init=10, random_state=3).fit(past_full)
    label_by_row = dict(zip(split.past.tolist(), kmeans.labels_.tolist(), strict=True))
    label_by_row |= dict(zip(split.future.tolist(), kmeans.predict(future_full).tolist(), strict=True))
    for judged in part.checkpoints:
        cut = dataset.prefixes[judged.checkpoint_pct]
        past, future = np.isin(cut.rows, split.past), np.isin(cut.rows, split.future)
        prefix_scaler = StandardScaler().fit(cut.vectors[past])
        known = np.array([label_by_row[row] for row in cut.rows[past]])
        truth = np.array([label_by_row[row] for row in cut.rows[future]])
        model = NearestCentroid().fit(prefix_scaler.transform(cut.vectors[past]) * weights, known)
        scaled = prefix_scaler.transform(cut.vectors[future]) * weights
        away = np.linalg.norm(scaled[:, None, :] - model.centroids_[None], axis=2)
        names = [cell.name for cell in part.cells]
        found = judged.scores[names.index("prefix_centroid euclidean softmax standard")]
        assert found.is_right == (model.predict(scaled) == truth).tolist()
        expected = -log_softmax(-away, axis=1)[np.arange(len(truth)), truth]
        assert found.log_loss == pytest.approx(np.minimum(expected, -np.log(1e-4)))
        assert found.confidence == pytest.approx(np.exp(log_softmax(-away, axis=1)).max(axis=1))


def test_interrupted_run_goes_on_where_it_stood_and_ends_the_same(
    dataset: Dataset, finished: tuple[Path, bytes], tmp_path: Path
) -> None:
    interrupt_after(tmp_path, dataset, 2)
    kept = files_in(tmp_path)
    assert len(kept) == 2
    assert result_of(dataset, OPTIONS, tmp_path) == finished[1]
    assert files_in(tmp_path).items() >= kept.items()
    assert set(files_in(tmp_path)) == set(files_in(finished[0]))


def test_any_number_of_processes_gives_the_same_bytes(
    dataset: Dataset, finished: tuple[Path, bytes], tmp_path: Path
) -> None:
    assert result_of(dataset, dataclasses.replace(OPTIONS, n_jobs=2), tmp_path) == finished[1]
    for name in files_in(finished[0]):
        assert (tmp_path / "parts" / name).read_bytes() == (finished[0] / "parts" / name).read_bytes()


def test_damaged_part_and_leftover_of_a_killed_write_are_made_good(
    dataset: Dataset, finished: tuple[Path, bytes], tmp_path: Path
) -> None:
    for name in files_in(finished[0]):
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / name).write_bytes((finished[0] / "parts" / name).read_bytes())
    damaged = tmp_path / "parts" / "split-1-robust.msgpack"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    leftover = tmp_path / "parts" / ".split-1-robust.msgpack-x1y2"
    leftover.write_bytes(b"half")
    whole = {name: place for name, place in files_in(tmp_path).items() if name.startswith("split-2")}
    assert result_of(dataset, OPTIONS, tmp_path) == finished[1]
    assert files_in(tmp_path).items() >= whole.items()
    assert not leftover.exists()


@pytest.mark.parametrize("change", [{"seed": 4}, {"n_archetypes": 4}, {"profile": "all"}, {"n_splits": 1}])
def test_parts_of_other_options_are_refused_and_left_alone(
    dataset: Dataset, finished: tuple[Path, bytes], change: dict[str, Any]
) -> None:
    before = files_in(finished[0])
    options = dataclasses.replace(OPTIONS, **change)
    with pytest.raises(ConfigError, match=r"other sessions, options or package versions.*--force"):
        run_grid(dataset, options, PartFolder(finished[0], force=False))
    assert files_in(finished[0]) == before


def test_force_deletes_what_another_run_left(finished: tuple[Path, bytes], tmp_path: Path) -> None:
    other = tmp_path / "ab"
    (other / "parts").mkdir(parents=True)
    stale = other / "parts" / "split-9-robust.msgpack"
    stale.write_bytes((finished[0] / "parts" / "split-1-robust.msgpack").read_bytes())
    folder = PartFolder(other, force=True)
    folder.begin("another run")
    assert not stale.exists()


def test_fingerprint_tells_sessions_and_options_apart_but_not_processes(dataset: Dataset) -> None:
    full = dataset.full.copy()
    full[-1, 0] = np.nextafter(full[-1, 0], np.inf)
    prints = [
        fingerprint(dataset, OPTIONS),
        fingerprint(dataclasses.replace(dataset, full=full), OPTIONS),
        fingerprint(dataclasses.replace(dataset, completion="count"), OPTIONS),
        fingerprint(dataset.select(np.arange(len(dataset) - 1)), OPTIONS),
        fingerprint(dataset, dataclasses.replace(OPTIONS, seed=4)),
        fingerprint(dataset, dataclasses.replace(OPTIONS, n_archetypes=None)),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(dataset, dataclasses.replace(OPTIONS, n_jobs=7)) == prints[0]


def test_archetypes_are_chosen_once_a_split_and_the_choice_is_kept(dataset: Dataset, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, n_splits=1, n_archetypes=None, profile=None)
    parts = run_grid(dataset, options, PartFolder(tmp_path, force=False))
    choice = PartFolder(tmp_path, force=False).read("split-1-choice", Choice)
    assert choice is not None
    assert {(part.profile, part.n_archetypes) for part in parts} == {(choice.profile, choice.n_archetypes)}


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_more_archetypes_than_sessions_names_the_setting_whatever_process_finds_it(
    dataset: Dataset, tmp_path: Path, n_jobs: int
) -> None:
    options = dataclasses.replace(OPTIONS, n_archetypes=500, n_jobs=n_jobs)
    with pytest.raises(ConfigError, match=r"archetypes.*expected at most \d+.*500"):
        run_grid(dataset, options, PartFolder(tmp_path, force=False))


@pytest.mark.parametrize("n_splits", [4, 50])
def test_too_few_sessions_for_the_splits_names_both_sides(dataset: Dataset, n_splits: int) -> None:
    with pytest.raises(ConfigError, match=rf"at least 20 .* in split 1 of {n_splits}; give more sessions or fewer"):
        make_splits(dataset, n_splits)


def test_checkpoint_that_no_past_session_reached_is_not_judged(dataset: Dataset) -> None:
    split = make_splits(dataset, 2)[0]
    cut = dataset.prefixes[50.0]
    late = cut.rows > split.past.max()
    prefixes = dataset.prefixes | {
        50.0: dataclasses.replace(cut, rows=cut.rows[late], vectors=cut.vectors[late], rests=cut.rests[late])
    }
    part = judge_split(dataclasses.replace(dataset, prefixes=prefixes), split, "standard", CHOICE, 0)
    assert [bool(judged.rows) for judged in part.checkpoints] == [True, False]
