"""The YAML groups, the typed sections and what they stand for say the same."""

from dataclasses import fields

import pytest
from hydra import compose, initialize_config_dir

from tracker import config
from tracker.errors import RequestError
from tracker.metrics.spectral import WINDOWS
from tracker.metrics.table import OPTIONS
from tracker.metrics.wavelets import MODES
from tracker.models import DTYPES
from tracker.nano import NanoRecipe
from tracker.planning.resolve import nano_recipe, suite_name
from tracker.records import CONVENTION_CHOICES, Conventions
from tracker.wandb_sink import SinkOptions


def composed(*overrides: str) -> config.Config:
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        return config.read(compose("config", overrides=list(overrides)))


def test_the_defaults_in_yaml_are_those_of_the_records():
    request = composed()
    assert request.conventions == Conventions()
    assert nano_recipe(request.suite) == NanoRecipe()  # type: ignore[arg-type]
    assert SinkOptions(**request.sink) == SinkOptions()
    assert config.NanoSuite(models=["0.05m", "0.2m", "0.8m"]) == request.suite


def test_named_conventions_are_those_that_the_metrics_offer():
    assert set(CONVENTION_CHOICES["window"]) == set(WINDOWS)
    assert set(CONVENTION_CHOICES["mode"]) == set(MODES)
    assert set(config.DTYPE_NAMES) == set(DTYPES)
    known = {each.name for each in fields(Conventions)} | set(OPTIONS)
    assert {each.name for each in fields(config.Spectrum)} == known


def test_another_recipe_of_the_embedded_suite_is_another_suite():
    assert suite_name(composed()) == "nano"
    assert suite_name(composed("suite.train_steps=4000", "suite.seeds=3")) == "nano-4000"
    assert suite_name(composed("suite.batch=8")).startswith("nano-")
    assert suite_name(composed("suite.batch=8")) != suite_name(composed("suite.batch=4"))


@pytest.mark.parametrize("group", ["suite", "steps", "probe", "spectrum", "sink", "engine"])
def test_every_file_of_every_group_composes(group: str):
    needed = {"folder": ["suite.path=here"], "hub": ["suite.repo=org/name"]}
    for file in sorted((config.folder() / group).glob("*.yaml")):
        request = composed(f"{group}={file.stem}", *needed.get(file.stem, []))
        assert isinstance(request, config.Config)


def test_a_port_that_is_none_is_refused():
    with pytest.raises(
        RequestError, match=r"^view.port=70000: invalid value; expected 0 \(any that is free\) to 65535$"
    ):
        composed("view.port=70000")
    assert composed("serve=true", "view.port=8080").serve


def test_no_more_workers_at_least_than_at_most():
    for engine in ("dask", "slurm"):
        request = (f"engine={engine}", "engine.workers=2")
        with pytest.raises(RequestError, match=r"^engine.min_workers=3: .* at most engine.workers=2$"):
            composed(*request, "engine.min_workers=3")
        assert composed(*request, "engine.min_workers=2").engine.min_workers == 2
    elsewhere = composed("engine=dask", "engine.address=tcp://host:1", "engine.min_workers=3")
    assert elsewhere.engine.min_workers == 3, "a running scheduler has workers of its own"
