"""Measures of a whole episode, and sentences about them."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import entr

from ez_jax.agent.continuous import LEAST_DEVIATION
from ez_jax.evaluation.on_track import number
from ez_jax.inspection.episode import Episode, Numbers
from ez_jax.inspection.imagined import Imagined, Real, error_by_depth, spread_by_depth

TINY = 1e-6
# Limits for a good or a bad finding, as shares of the compared number.
VALUE_FITS, VALUE_IS_OFF = 0.15, 0.5
PREFIX_FITS, PREFIX_IS_GUESSED = 0.5, 1.0
NO_PREFERENCE = 0.97  # of the largest possible entropy
ONE_ACTION, STUCK = 0.95, 0.1  # of the steps
FEW_STEPS = 20  # too few for general findings
# Of continuous actions, which lie in -1..1.
AT_BOUND = 0.95  # from here on a number counts as at its bound
HARDLY_CHANGES = 0.05  # deviation of the executed actions
COLLAPSED = 1.3 * LEAST_DEVIATION  # deviation of the network's policy; 0.1 is the least
FIRST_DEVIATION = float(np.log1p(np.e)) + LEAST_DEVIATION  # 1.41, of an untrained network
AS_WIDE = 0.95 * FIRST_DEVIATION
NO_PREFERRED = 0.2  # distance of its middle from 0
Kind = Literal["good", "note", "warning"]


class Finding(NamedTuple):
    """A sentence about the episode."""

    kind: Kind
    text: str


@dataclasses.dataclass(frozen=True)
class Measures:
    """Measures of one episode."""

    returns: np.ndarray  # f64[T+1], realised discounted return
    prior_entropy: np.ndarray  # f64[T], in nats; of candidates it says nothing
    policy_entropy: np.ndarray  # f64[T], in nats
    prefix_error: list[float | None]  # by depth
    prefix_guess: list[float | None]  # of always guessing the mean
    reward_error: list[float | None]
    reward_guess: list[float | None]
    value_error: list[float | None]  # from depth 0, the network's own value, on
    value_guess: list[float | None]
    value_bias: float  # mean of predicted minus realised
    value_correlation: float | None  # None where one of them does not change


def measure(episode: Episode, returns: np.ndarray, imagined: Imagined, real: Real) -> Measures:
    """Compute all measures; `returns` are `imagined.returns_to_go`."""
    realised = returns[:-1]
    value = np.concatenate([episode.value[:, None], imagined.value], axis=1)
    real_value = np.concatenate([realised[:, None], real.value], axis=1)
    changes = min(np.std(episode.value), np.std(realised)) > TINY
    return Measures(
        returns=returns,
        prior_entropy=entr(episode.prior).sum(axis=-1),
        policy_entropy=entr(episode.policy).sum(axis=-1),
        prefix_error=error_by_depth(imagined.value_prefix, real.value_prefix),
        prefix_guess=spread_by_depth(real.value_prefix),
        reward_error=error_by_depth(imagined.reward, real.reward),
        reward_guess=spread_by_depth(real.reward),
        value_error=error_by_depth(value, real_value),
        value_guess=spread_by_depth(real_value),
        value_bias=float(np.mean(episode.value - realised)),
        value_correlation=(float(np.corrcoef(episode.value, realised)[0, 1]) if changes else None),
    )


def findings(episode: Episode, measures: Measures) -> list[Finding]:
    """Sentences on what is good and bad, from this episode alone."""
    judged = [
        *_values(episode, measures),
        *_prefixes(episode, measures),
        *_search(episode),
        *(_numbers(episode) if episode.numbers else _actions(episode, measures)),
        *_stillness(episode),
    ]
    order = ("warning", "good", "note")
    return [*_outcome(episode), *sorted(judged, key=lambda finding: order.index(finding.kind))]


def _outcome(episode: Episode) -> Iterator[Finding]:
    total, score = len(episode.action), episode.score.sum()
    if episode.cut:
        yield Finding(
            "note",
            f"The episode was cut short by {episode.cut}, at a score of {score:,.6g}; in the "
            "returns, the rest counts as the network's value.",
        )
    else:
        yield Finding(
            "note", f"The episode ended after {total:,} steps with a score of {score:,.6g}."
        )
    if episode.no_pictures:
        yield Finding("note", f"There are no images: {episode.no_pictures}.")


def _values(episode: Episode, measures: Measures) -> Iterator[Finding]:
    realised = measures.returns[:-1]
    size = max(float(np.mean(np.abs(realised))), TINY)
    error = measures.value_error[0] or 0.0  # known if there was any decision
    bias, r = measures.value_bias, measures.value_correlation
    numbers = (
        f"predicted {number(episode.value.mean())}, realised {number(realised.mean())} on average"
    )
    if not np.any(episode.reward):
        yield Finding("note", f"Value calibration: there was no reward; {numbers}.")
    elif error > VALUE_IS_OFF * size:
        way = "too high" if bias > 0 else "too low"
        yield Finding("warning", f"Value calibration: values are off, mostly {way}: {numbers}.")
    else:
        kind: Kind = "good" if error < VALUE_FITS * size else "note"
        yield Finding(
            kind,
            f"Value calibration: values are {number(error)} off on average, "
            f"{error / size:.0%} of what was realised ({numbers}).",
        )
    if r is not None and r < 0 and np.std(realised) > VALUE_FITS * size:
        yield Finding("warning", f"Values fall where returns rise (correlation {r:.2f}).")


def _prefixes(episode: Episode, measures: Measures) -> Iterator[Finding]:
    by_depth = enumerate(zip(measures.prefix_error, measures.prefix_guess, strict=True))
    known = [(depth, e, g) for depth, (e, g) in by_depth if e is not None and g is not None]
    depth, error, guess = known[-1]
    said = f"Prefix error by depth: {number(error)} after {depth + 1} imagined steps"
    if not np.any(episode.reward):
        yield Finding(
            "note", f"{said}; there was no reward, so this only shows that none is expected."
        )
    elif guess < TINY:
        size = float(np.mean(np.abs(episode.reward))) * (depth + 1)
        kind: Kind = "good" if error < VALUE_FITS * size else "warning"
        yield Finding(kind, f"{said}; every step has the same reward, which is easy to predict.")
    elif error >= PREFIX_IS_GUESSED * guess:
        yield Finding(
            "warning", f"{said}, no better than always guessing the mean ({number(guess)})."
        )
    else:
        kind = "good" if error < PREFIX_FITS * guess else "note"
        yield Finding(kind, f"{said}, compared with {number(guess)} for always guessing the mean.")


def _search(episode: Episode) -> Iterator[Finding]:
    gain = float(episode.gain.mean())
    changed, what = _changed(episode)
    said = f"Search gain: {number(gain)} on average; {what}"
    if gain < -TINY:
        yield Finding("warning", f"{said}: by its own Qs the search is worse than the network.")
    else:
        adds = "" if changed else ": it chose like the network"
        yield Finding("good" if changed and gain > TINY else "note", f"{said}{adds}.")


def _changed(episode: Episode) -> tuple[float, str]:
    """How much the executed actions differ from what the network prefers, and that in words."""
    if numbers := episode.numbers:
        away = float(np.abs(episode.action - np.tanh(numbers.mean)).mean())
        return away, (
            f"the executed actions are {number(away)} away from the middle of the network's "
            "policy, in numbers from -1 to 1"
        )
    share = float(np.mean(episode.prior.argmax(axis=-1) != episode.action))
    return share, (
        f"in {share:.0%} of the steps the search did not take the network's favourite action"
    )


def _actions(episode: Episode, measures: Measures) -> Iterator[Finding]:
    total, num_actions = len(episode.action), len(episode.action_names)
    if total < FEW_STEPS:
        return
    if num_actions > 1 and measures.prior_entropy.mean() > NO_PREFERENCE * np.log(num_actions):
        yield Finding("warning", "The network's policy prefers no action: it has learned none.")
    counts = np.bincount(episode.action, minlength=num_actions)
    if num_actions > 1 and counts.max() > ONE_ACTION * total:
        name = episode.action_names[int(counts.argmax())]
        yield Finding(
            "warning", f"One action, {name}, was taken in {counts.max() / total:.0%} of the steps."
        )


def _numbers(episode: Episode) -> Iterator[Finding]:
    """On continuous actions."""
    assert episode.numbers is not None, "the actions are discrete"
    names, action = episode.action_names, episode.action
    if len(action) < FEW_STEPS:
        return
    yield from _widths(names, episode.numbers)
    if np.all(action.std(axis=0) < HARDLY_CHANGES):
        means = ", ".join(f"{mean:+.2f}" for mean in action.mean(axis=0))
        yield Finding("warning", f"The action hardly changes: it stays near {means}.")
        return
    shares = np.mean(np.abs(action) > AT_BOUND, axis=0)
    if np.any(bang := shares > ONE_ACTION):
        yield Finding(
            "note",
            f"Actions sit at their bounds: beyond ±{AT_BOUND} in {shares[bang].mean():.0%} of the "
            f"steps{_which(names, bang)}.",
        )


def _widths(names: Sequence[str], numbers: Numbers) -> Iterator[Finding]:
    width = numbers.deviation.mean(axis=0)
    if np.any(narrow := width < COLLAPSED):
        yield Finding(
            "warning",
            f"The network's policy has collapsed to a deviation of {number(width[narrow].mean())}"
            f"{_which(names, narrow)}, the least being {LEAST_DEVIATION}: the candidates of a "
            "search are nearly alike.",
        )
    if np.any(wide := width > AS_WIDE):
        middle = np.abs(np.tanh(numbers.mean)).mean(axis=0)
        is_untrained = bool(np.all(wide & (middle < NO_PREFERRED)))
        end = ", and it prefers no action: it has learned none." if is_untrained else "."
        yield Finding(
            "warning" if is_untrained else "note",
            f"The network's policy is no narrower than before training{_which(names, wide)}: its "
            f"deviation is {number(width[wide].mean())}, that of an untrained network "
            f"{FIRST_DEVIATION:.2f}{end}",
        )


def _which(names: Sequence[str], is_meant: Iterable[bool]) -> str:
    """Which numbers of an action are meant, if not all."""
    meant = [name for name, is_it in zip(names, is_meant, strict=True) if is_it]
    return "" if len(meant) == len(names) else f" ({', '.join(meant)})"


def _stillness(episode: Episode) -> Iterator[Finding]:
    total = len(episode.action)
    if total < FEW_STEPS:
        return
    length, first = longest_still(episode.film.index)
    if length > max(STUCK * total, FEW_STEPS):
        yield Finding(
            "warning", f"The image did not change for {length:,} steps from step {first:,} on."
        )


def longest_still(index: Sequence[int]) -> tuple[int, int]:
    """Length and start of the longest part with an unchanged image."""
    best, first = (0, 0), 0
    for t, place in enumerate(index):
        if t and place != index[t - 1]:
            first = t
        best = max(best, (t - first + 1, -first))
    return best[0], -best[1]
