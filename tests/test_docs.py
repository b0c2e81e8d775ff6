"""README and docs/: what they show runs, what they link to exists, what mirrors the code equals it."""

import re
import runpy
import shlex
import shutil
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import swept  # noqa: F401  # a fixture
from hydra import compose, initialize_config_dir
from live_material import texts
from transformers import AutoModelForCausalLM, TrainingArguments

import tracker
from tracker import config
from tracker.cli import with_current_names
from tracker.commands import COMMANDS
from tracker.measurement.probe import load_tokenizer
from tracker.metrics.table import markdown_table
from tracker.store.schema import MEANINGS, SCHEMAS

ROOT = Path(__file__).parent.parent
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in path.parts
}
README = PAGES["README.md"]


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The command lines of a page's sh blocks, without their comments."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [line for line in (line.split(" #")[0].strip() for line in lines) if line]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_has_exactly_the_two_commands():
    assert len(README.splitlines()) <= 200
    assert README.count("pip install") == 2
    assert "python -m pip install -c constraints.txt . && tracker sweep" in README
    assert "python -m pip install -c constraints.txt '.[test]' && python -m pytest" in README


def test_the_readme_lists_every_command():
    listed = README.split("and exit codes\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `tracker (\w+)` \|", listed, flags=re.MULTILINE) == list(COMMANDS)


def test_the_table_of_metrics_is_the_codes():
    assert markdown_table() in PAGES["docs/metrics.md"]


@pytest.mark.parametrize("name", GENERATE["pages"]())
def test_a_generated_reference_is_what_the_code_and_the_configuration_say(name: str):
    assert PAGES[f"docs/reference/{name}"] == GENERATE["pages"]()[name], "run: python docs/generate.py"


def test_a_changed_comment_of_the_configuration_changes_its_reference():
    text = "# of the file\npart:   # about\n  field: 1   # says\n    # this\n# above\nother: a  # b\n"
    assert list(GENERATE["fields"](text, "group.")) == [
        ("`group.part`", "", "about"),
        ("`group.part.field`", "`1`", "says this"),
        ("`group.other`", "`a`", "above b"),
    ]


def test_every_field_of_the_configuration_is_in_its_reference():
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        composed = compose("config")
    page = PAGES["docs/reference/config.md"]
    for name, value in composed.items():
        assert f"| `{name}` |" in page or f"\n## {name}\n" in page, name
        if hasattr(value, "keys"):
            for field in value:
                assert f"| `{name}.{field}` |" in page, field


def test_every_column_has_a_meaning():
    for table, schema in SCHEMAS.items():
        page = PAGES["docs/reference/store.md"].split(f"## {table}\n")[1].split("\n## ")[0]
        assert not re.findall(r"^\| .+ \| .+ \|  \|$", page, flags=re.MULTILINE), table
        assert {name for name in schema if name in MEANINGS} <= set(re.findall(r"^\| `(\w+)`", page, re.M))


def test_the_site_documents_the_whole_python_interface():
    listed = (ROOT / "docs" / "reference" / "api.rst").read_text(encoding="utf-8")
    assert set(re.findall(r"auto(?:class|function):: tracker\.(\w+)$", listed, re.M)) == set(tracker.__all__)


def test_every_page_is_in_the_index_twice_for_readers_and_for_the_site():
    index = PAGES["docs/index.md"]
    toctree = "".join(blocks(index, r"\{toctree\}"))
    for name in PAGES:
        if name not in ("README.md", "docs/index.md"):
            page = name.removeprefix("docs/")
            assert f"({page})" in index, page
            assert f"\n{page.removesuffix('.md')}\n" in toctree, page


@pytest.mark.parametrize("name", PAGES)
def test_every_link_and_picture_exists(name: str):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.is_file(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", PAGES)
def test_every_table_has_a_heading_and_rows_of_one_width(name: str):
    lines = PAGES[name].splitlines()
    for at, line in enumerate(lines):
        if re.fullmatch(r"\|( --- \|)+", line):
            width = line.count("|")
            assert re.sub(r"\\\|", "", lines[at - 1]).count("|") == width, lines[at - 1]
            for row in lines[at + 1 :]:
                if not row.startswith("|"):
                    break
                assert re.sub(r"`[^`]*`|\\\|", "", row).count("|") == width, row


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if commands(text)])
def test_every_command_composes_by_the_current_names(name: str):
    for line in commands(PAGES[name]):
        program, *words = shlex.split(line)
        if program == "python":
            assert (ROOT / words.pop(0)).is_file(), line
        else:
            assert program == "tracker", line
            assert words.pop(0) in COMMANDS, line
        given = [each for each in words if not each.startswith("--")]
        assert with_current_names(given) == given
        with initialize_config_dir(str(config.folder()), version_base="1.3"):
            config.read(compose("config", overrides=given))


@pytest.fixture
def given(tmp_path: Path, swept: tuple[Path, str]) -> dict[str, Any]:  # noqa: F811
    """What the pages' Python has at hand: a swept store, a model with its tokenizer, data, an optimizer."""
    shutil.copytree(swept[0] / "tracker-store", tmp_path / "tracker-store")
    checkpoint = next((tmp_path / "tracker-store" / "nano").rglob("config.json")).parent
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    data = [{"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(ids)} for ids in texts(32)]
    return {
        "torch": torch,
        "tracker": tracker,
        "model": model,
        "tokenizer": load_tokenizer(checkpoint),
        "dataset": data,
        "batches": [{name: each[None] for name, each in row.items()} for row in data[:4]],
        "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3),
        "arguments": TrainingArguments(
            output_dir=str(tmp_path / "trained"), max_steps=4, report_to=[], disable_tqdm=True, use_cpu=True,
            save_strategy="no", dataloader_pin_memory=False,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if blocks(text, "python")])
def test_the_python_of_a_page_runs(name: str, given: dict[str, Any], tmp_path: Path):
    """Block by block as one script, with the names that a page takes as given."""
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(PAGES[name], "python")))
    with chdir(tmp_path), redirect_stdout(StringIO()):
        left = runpy.run_path(str(script), init_globals=given)
    if name == "README.md":
        assert left["heads"]["model"].n_unique() == 2
        assert set(left["measured"].heads["head"]) <= set(left["heads"]["head"])
    if name == "docs/guide/live-training.md":
        steps = {store: tracker.open_store(tmp_path / "runs" / store) for store in ("mine", "loop")}
        assert all(0 in results.checkpoints()["step"].to_list() for results in steps.values())


def test_a_block_that_fails_is_found(tmp_path: Path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks("```python\nresults.no_such_table()\n```\n", "python")))
    with pytest.raises(NameError):
        runpy.run_path(str(script))


def test_the_recipes_in_the_docs_are_those_in_the_folder():
    listed = re.findall(r"^\| `([\w.-]+\.(?:sh|sbatch|yaml))`", PAGES["docs/guide/cluster.md"], re.M)
    assert set(listed) == {path.name for path in (ROOT / "sweeps").iterdir() if path.is_file()}
