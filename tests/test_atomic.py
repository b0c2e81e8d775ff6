"""JSON files that several processes change at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracker.atomic import update_json

ROOT = Path(__file__).parent.parent
ADDING = """
import sys
from pathlib import Path
from tracker.atomic import update_json
for number in range(40):
    update_json(Path(sys.argv[1]), lambda known: known | {f"{sys.argv[2]}-{number}": number})
"""
NOTING = """
import sys
from pathlib import Path
from tracker.planning import estimate
estimate.platform.node = lambda: sys.argv[2]
for number in range(40):
    estimate.note_transfer(Path(sys.argv[1]).parent, 100, 1.0)
"""


@pytest.mark.parametrize(("script", "name", "entries"), [(ADDING, "any.json", 80), (NOTING, "rates.json", 2)])
def test_processes_that_change_one_file_lose_nothing(tmp_path: Path, script: str, name: str, entries: int):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / name), each],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for each in ("one", "other")
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(json.loads((tmp_path / name).read_text())) == entries


@pytest.mark.parametrize("content", ["[1]", "{", ""])
def test_a_file_that_holds_no_object_counts_as_empty(tmp_path: Path, content: str):
    (tmp_path / "any.json").write_text(content)
    update_json(tmp_path / "any.json", lambda known: known | {"new": 1})
    assert json.loads((tmp_path / "any.json").read_text()) == {"new": 1}
