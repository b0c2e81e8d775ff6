import re

import pytest

from tracker.checkpoints import expanded, names
from tracker.checkpoints.names import Named
from tracker.errors import RequestError


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("step0", Named(0)),
        ("step143000", Named(143000)),
        ("step-12", Named(12)),
        ("step_12", Named(12)),
        ("checkpoint-500", Named(500)),
        ("step1000-tokens4B", Named(1000, 4 * 10**9)),
        ("stage1-step1000-tokens4B", Named(1000, 4 * 10**9)),
        ("step10-tokens512K", Named(10, 512_000)),
        ("stage2-ingredient1-step1000-tokens4B", Named(1000, 4 * 10**9, 1, "stage2")),
        ("stage1-step-40000", Named(40000)),
        ("step-001000-2BT", Named(1000, 2 * 10**9)),
        ("step35000-seed-default", Named(35000, None, 0)),
        ("step35000-seed-small-aux-2", Named(35000, None, 2)),
        ("ckpt_000", Named(0)),
        ("iter_0002384", Named(2384)),
        ("global_step1000", Named(1000)),
        ("593B", None),
        ("main", None),
        ("step", None),
        ("step10.tmp", None),
        ("mystep10", None),
        ("step10\n", None),
    ],
)
def test_known_forms(name: str, said: Named | None) -> None:
    assert names.read(name) == said


def test_own_pattern_reads_step_tokens_and_seed() -> None:
    pattern = r"s(?P<seed>\d+)/it(?P<step>\d+)(?:_(?P<tokens>\d+M))?"
    assert names.read("s3/it20_5M", pattern) == Named(20, 5_000_000, 3)
    assert names.read("s3/it20", pattern) == Named(20, None, 3)
    assert names.read("step20", pattern) is None


@pytest.mark.parametrize(
    ("name", "pattern", "message"),
    [
        ("step1", "step(", "suite.pattern=step(: not a regular expression"),
        ("step1", r"step(\d+)", r"suite.pattern=step(\d+): has no group named step or tokens"),
        (
            "step-ten",
            r"step-(?P<step>\w+)",
            "its group step matched 'ten' in the name 'step-ten'",
        ),
        ("step1x", r"step(?P<step>\d+)(?P<seed>\w)", "its group seed matched 'x'"),
    ],
)
def test_patterns_that_are_refused(name: str, pattern: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        names.read(name, pattern)


@pytest.mark.parametrize("span", ["0..10000000", "4..0"])
def test_a_slip_in_a_range_of_repositories_is_refused(span: str) -> None:
    with pytest.raises(RequestError, match=rf"^suite.repo=lab/x_{{{span}}}: .* is no range of 1 to 10000 "):
        expanded(f"lab/x_{{{span}}}")
