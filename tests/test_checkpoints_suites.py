import re
from pathlib import Path

import pytest
import yaml

from tracker import checkpoints
from tracker.checkpoints import Labels
from tracker.errors import RequestError

CONF = Path(__file__).parents[1] / "conf" / "suite"


def test_pythia_schedule_is_the_papers() -> None:
    steps = checkpoints.PYTHIA_STEPS
    assert len(steps) == 154
    assert steps[:12] == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
    assert steps[-1] == 143000
    assert list(steps) == sorted(set(steps))


def test_pythia() -> None:
    found = checkpoints.published("pythia", ["70m", "12b"])
    assert len(found) == 2 * 154
    last = found[153]
    assert (last.suite, last.model, last.seed, last.step) == ("pythia", "70m", 0, 143000)
    assert (last.kind, last.location, last.revision) == ("hub", "EleutherAI/pythia-70m", "step143000")
    assert last.tokens_seen == 143000 * 2**21 == 299_892_736_000
    assert last.commit is None
    assert last.exists is None
    assert found[154].location == "EleutherAI/pythia-12b"


def test_deduped_and_mirror() -> None:
    (one,) = checkpoints.published("pythia-deduped", ["1.4b"], steps=[512])
    assert one.location == "EleutherAI/pythia-1.4b-deduped"
    (one,) = checkpoints.published("pythia", ["14m"], steps=[0], repo_format="mirror/copy-{size}")
    assert one.location == "mirror/copy-14m"


def test_polypythias_seeds() -> None:
    found = checkpoints.published("polypythias", ["14m"], steps=[0, 8])
    assert [checkpoint.seed for checkpoint in found[::2]] == list(range(10))
    assert [checkpoint.location for checkpoint in found[:4:2]] == [
        "EleutherAI/pythia-14m",
        "EleutherAI/pythia-14m-seed1",
    ]
    assert [checkpoint.step for checkpoint in found[:4]] == [0, 8, 0, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suite": "pithia", "models": ["70m"]}, "suite=pithia: invalid value; expected one of pythia"),
        ({"suite": "pythia", "models": ["71m"]}, "suite.models=71m: invalid value; expected one of 14m"),
        ({"suite": "polypythias", "models": ["1b"]}, "expected one of 14m, 31m, 70m, 160m, 410m"),
        ({"suite": "pythia", "models": ["70m"], "seeds": [1]}, "suite.seeds=1: invalid value"),
        ({"suite": "pythia", "models": ["70m"], "repo_format": "a/b"}, "suite.repo_format=a/b: needs the f"),
        ({"suite": "pythia", "models": ["70m"], "repo_format": "a/{size}{x}"}, "and no other"),
        ({"suite": "pythia", "models": ["70m"], "repo_format": "a/{size"}, "not a format of names"),
    ],
)
def test_wrong_requests(arguments: dict, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        checkpoints.published(**arguments)


def test_branch_form_without_step() -> None:
    with pytest.raises(RequestError, match=re.escape("revision=main: has no field {step}")):
        checkpoints.declared("o/n", Labels("s", "n"), [1, 2], revision="main")
    with pytest.raises(RequestError, match=re.escape("revision={number}: the only field")):
        checkpoints.declared("o/n", Labels("s", "n"), [1], revision="{number}")


@pytest.mark.parametrize("name", sorted(checkpoints.SUITES))
def test_conf_of_published_suites_agrees(name: str) -> None:
    conf = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert set(conf) - {"defaults"} == {"name", "models", "seeds", "repo_format"}
    assert conf["name"] == name
    assert conf["repo_format"] == checkpoints.SUITES[name].repo_format
    sizes = ["14m", "31m", "70m", "160m", "410m"]
    assert conf["models"] == [size for size in sizes if size in checkpoints.SUITES[name].sizes]
    found = checkpoints.published(name, conf["models"], seeds=conf["seeds"], repo_format=conf["repo_format"])
    suite = checkpoints.SUITES[name]
    assert len(found) == len(conf["models"]) * (143 if "v0" in name else 154) * len(suite.seeds)


@pytest.mark.parametrize("name", ["hub", "olmo", "pico", "folder"])
def test_conf_of_open_suites_names_what_discover_takes(name: str) -> None:
    conf = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    fields = {"hub": {"repo", "branch", "pattern", "model", "stages", "tokens_per_step"}}
    fields |= {"olmo": fields["hub"] | {"repos"}, "pico": fields["hub"]}
    fields |= {"folder": {"path", "model", "seed", "step", "pattern"}}
    assert set(conf) - {"defaults"} == {"name", "models", "seeds"} | fields[name]
    assert conf["name"] == name
