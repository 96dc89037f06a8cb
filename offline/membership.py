"""Learn the probability of each archetype from prefixes: the calibrated model that the service applies with numpy.

An archetype is a region of fingerprints of full sessions. So the full fingerprint is forecast first, by ridge
regression on the prefix; then a multinomial logistic regression on that forecast and its products learns how much of
the forecast's error reaches over into other regions. It is fitted on forecasts of sessions that the ridge regression
had not seen, hence its probabilities mean what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from offline.inputs import quadratics
from offline.linear import fit_ridge, ridge_penalty
from offline.scores import LEAST_PROBABILITY, log_losses
from offline.splits import blocks
from stream_fp.artifacts import MembershipArrays
from stream_fp.features import N_FEATURES

__all__ = ["MembershipFit", "fit_membership", "predict_membership"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Inverse penalties of the logistic regression that are tried; the strongest makes it a guess from frequencies.
_INVERSE_PENALTIES: Final = (0.003, 0.03, 0.3, 3.0)
_MAX_ITERATIONS: Final = 2000
#: With fewer sessions a split of them leaves too little on either side; strong penalties are taken untried.
_MIN_SESSIONS: Final = 40
_STRONG_PENALTY: Final = 100.0
#: In standard deviations, beyond which a fingerprint counts as that far out.
_MAX_TARGET: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MembershipFit:
    """A membership model, and what it said of each session while that session was held out.

    Attributes
    ----------
    arrays : MembershipArrays
    held_out : ndarray of shape (n_prefixes, n_archetypes)
        Probabilities by models of the other blocks of time.
    """

    arrays: MembershipArrays
    held_out: Array


def fit_membership(
    inputs: Array, scaled: Array, labels: Ints, days: Ints, features: Sequence[int], *, hold_out: bool = True
) -> MembershipFit:
    """Learn the probability of each archetype.

    Parameters
    ----------
    inputs : ndarray of shape (n, n_inputs)
        Of prefixes in order of time, as `offline.inputs.make_inputs` gives them.
    scaled : ndarray of shape (n, 30)
        Fingerprints of the same sessions when complete, in scaled space.
    labels : ndarray of shape (n,), int64
        Places of their archetypes among those that occur: from 0 on without a gap.
    days : ndarray of shape (n,)
        Of the sessions, ascending.
    features : sequence of int
        Those of the fingerprint that tell archetypes apart.
    hold_out : bool
        Whether `held_out` is wanted, which takes five more fits; else it says nothing.
    """
    # Clipped like the inputs: of an outlier it is enough to know that it is one. Archetypes are regions that reach out
    # to infinity, so nothing is lost.
    targets = np.clip(scaled[:, list(features)], -_MAX_TARGET, _MAX_TARGET)
    n_archetypes = int(labels.max()) + 1
    held_out = np.full((len(labels), n_archetypes), 1.0 / n_archetypes)
    for block, others in blocks(days) if hold_out else ():
        if not len(others):  # a single session
            continue
        model = _fit(inputs[others], targets[others], labels[others], days[others], n_archetypes)
        held_out[block] = _probabilities(inputs[block], *model)
    fingerprint, logits = _fit(inputs, targets, labels, days, n_archetypes)
    arrays = MembershipArrays(features=list(features), fingerprint=fingerprint.tolist(), logits=logits.tolist())
    return MembershipFit(arrays=arrays, held_out=held_out)


def predict_membership(arrays: MembershipArrays, inputs: Array) -> Array:
    """Return the probabilities of each row of inputs, shape (n, n_archetypes)."""
    return _probabilities(inputs, np.array(arrays.fingerprint), np.array(arrays.logits))


def _fit(inputs: Array, targets: Array, labels: Ints, days: Ints, n_archetypes: int) -> tuple[Array, Array]:
    splits = list(blocks(days))
    is_small = len(labels) < _MIN_SESSIONS
    penalty = np.full(targets.shape[1], _STRONG_PENALTY)
    if not is_small:
        penalty = ridge_penalty(inputs, targets, splits)
    expected = np.empty_like(targets)
    for block, others in splits:
        expected[block] = inputs[block] @ fit_ridge(inputs[others], targets[others], penalty)
    rows = quadratics(expected, inputs[:, 1 + N_FEATURES :])
    strength = _INVERSE_PENALTIES[0] if is_small else _best_strength(rows, labels, splits, n_archetypes)
    return fit_ridge(inputs, targets, penalty), _logits(rows, labels, strength, n_archetypes)


def _best_strength(rows: Array, labels: Ints, splits: list[tuple[Ints, Ints]], n_archetypes: int) -> float:
    losses = []
    for strength in _INVERSE_PENALTIES:
        total = 0.0
        for block, others in splits:
            logits = _logits(rows[others], labels[others], strength, n_archetypes)
            total += float(log_losses(_softmax(rows[block] @ logits), labels[block]).sum())
        losses.append(total)
    return _INVERSE_PENALTIES[int(np.argmin(losses))]


def _logits(rows: Array, labels: Ints, strength: float, n_archetypes: int) -> Array:
    """Fit the logistic regression; archetypes that do not occur stay far below those that do."""
    logits = np.zeros((rows.shape[1], n_archetypes))
    present = np.unique(labels)
    absent = np.setdiff1d(np.arange(n_archetypes), present)
    if len(present) > 1:
        model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(rows[:, 1:], labels)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(present) == 2:  # scikit-learn fits one column then: the log odds of the second
            coefficients = np.vstack((-coefficients, coefficients)) / 2
            intercepts = np.hstack((-intercepts, intercepts)) / 2
        logits[1:, present] = coefficients.T
        logits[0, present] = intercepts
    logits[0, absent] = logits[0, present].min() + np.log(LEAST_PROBABILITY)
    return logits


def _probabilities(inputs: Array, fingerprint: Array, logits: Array) -> Array:
    return _softmax(quadratics(inputs @ fingerprint, inputs[:, 1 + N_FEATURES :]) @ logits)


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
