"""Malformed checkpoint folders end in right numbers or one clear line, whole and block by block alike."""

from pathlib import Path

import pytest
from folder_fuzz import print_table, try_folders

RIGHT = {"right numbers", "another model's numbers", "one line"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_malformed_folder_ends_otherwise(tmp_path: Path):
    counts = try_folders(tmp_path, 60)
    print_table(counts, "60 malformed checkpoint folders")
    assert {end for _, end in counts} <= RIGHT
