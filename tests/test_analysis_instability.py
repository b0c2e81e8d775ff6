"""Alerts of live training: found where planted, silent on noise and on a model that is merely trained."""

from dataclasses import replace

import numpy as np
import pytest

from tracker.analysis.instability import Limits, Observation, instabilities, uniform_entropy

N, LAYERS, SEQUENCES = 96, 3, 16


def observation(step: int, level: float, entropy: list[float] | None = None, *, noise: float = 0.0,
                generator: np.random.Generator | None = None) -> Observation:  # fmt: skip
    drawn = generator or np.random.default_rng(step)
    samples = np.linspace(-0.2, 0.2, SEQUENCES) + level + noise * drawn.normal() + 0.01 * drawn.normal(
        size=SEQUENCES
    )  # fmt: skip
    layers = np.array(entropy or [2.5] * LAYERS)
    return Observation(step, {"spectral_entropy": samples}, layers, uniform_entropy(N))


def test_uniform_attention_has_the_entropy_that_is_said():
    assert uniform_entropy(96) == pytest.approx(sum(np.log(k) for k in range(1, 97)) / 96)


def test_a_layer_that_collapses_is_told_once_until_it_has_recovered():
    entropies = [2.5, 2.4, 0.2, 0.1, 0.2, 1.5, 0.1]
    history = [observation(step, 2.0, [2.5, entropy, 2.5]) for step, entropy in enumerate(entropies)]
    told = [[each.condition for each in instabilities(history[: t + 1])] for t in range(len(history))]
    assert told == [[], [], ["entropy collapse"], [], [], [], ["entropy collapse"]]
    first = instabilities(history[:3])[0]
    assert first.sentence == (
        "layer 1: mean attention entropy has fallen to 0.2 nats at step 2, 6% of uniform attention's"
    )
    assert first.level == "WARN"


def test_attention_that_was_always_sharp_has_not_collapsed():
    assert instabilities([observation(step, 2.0, [0.1] * LAYERS) for step in range(5)]) == []


def test_a_jump_is_told_and_the_way_on_is_not():
    levels = [2.0, 2.02, 2.03, 2.05, 2.06, 2.08, 3.0, 3.02]
    history = [observation(100 * t, level) for t, level in enumerate(levels)]
    told = [instabilities(history[: t + 1]) for t in range(len(history))]
    assert [bool(each) for each in told] == [False] * 6 + [True, False]
    assert told[6][0].condition == "sudden change of spectral_entropy"
    assert told[6][0].sentence.startswith("spectral entropy moves by +0.9")
    assert "from step 500 to 600; its largest move before was 0.0" in told[6][0].sentence
    assert told[6][0].level == "INFO"


def test_noise_raises_few_alarms():
    """20 checkpoints of a level with noise of its own: 14 chances a run for a false alarm."""
    alarms = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        history = [observation(t, 2.0, noise=0.05, generator=generator) for t in range(20)]
        alarms += any(instabilities(history[: t + 1]) for t in range(20))
    assert alarms / 200 < 0.1


def test_nothing_is_judged_from_too_little():
    assert instabilities([]) == []
    assert instabilities([observation(t, float(t**3)) for t in range(5)], Limits()) == []


JUMP = [2.0, 2.02, 2.03, 2.05, 2.06, 2.08, 3.0]


@pytest.mark.parametrize("spoilt", [[0], list(range(SEQUENCES))])
def test_sequences_without_a_value_once_do_not_silence_the_alarm(spoilt: list[int]):
    history = [observation(100 * t, level) for t, level in enumerate(JUMP)]
    history.insert(3, observation(250, 2.04))
    history[3].samples["spectral_entropy"][spoilt] = np.nan
    assert [each.condition for each in instabilities(history)] == ["sudden change of spectral_entropy"]


def test_the_steps_of_a_sudden_change_are_those_that_have_a_value():
    """The checkpoint before the last has none: the move goes from the one before it."""
    history = [observation(100 * t, level) for t, level in enumerate(JUMP)]
    history.insert(-1, Observation(550, {"spectral_entropy": np.full(SEQUENCES, np.nan)}, np.ones(3), 3.6))
    (found,) = instabilities(history)
    assert "from step 500 to 600;" in found.sentence


def test_measurements_that_stopped_at_other_numbers_of_sequences_are_compared_on_those_they_share():
    history = [observation(100 * t, level) for t, level in enumerate(JUMP)]
    cut = {"spectral_entropy": history[2].samples["spectral_entropy"][:8]}
    history[2] = replace(history[2], samples=cut)
    assert [each.condition for each in instabilities(history)] == ["sudden change of spectral_entropy"]


def test_a_metric_that_is_not_there_is_passed_over():
    broken = Observation(9, {"spectral_entropy": np.full(SEQUENCES, np.nan)}, np.full(3, np.nan), 3.6)
    assert instabilities([*(observation(t, 2.0) for t in range(8)), broken]) == []
