"""The table of faults names tests that exist, one at least for each."""

import pytest
from faults import FAULTS, main, places


def test_every_test_that_the_table_names_exists():
    named = {test for fault in FAULTS for test in fault.tests}
    assert sorted(named - set(places())) == []
    assert all(fault.tests for fault in FAULTS)
    assert {fault.number for fault in FAULTS} == {*map(str, range(1, 27)), "message"}


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]):
    assert main(["25", "22"]) == 0
    said = capsys.readouterr().out
    assert "test_lying_hub.py::test_a_hash_of_the_listing" in said
    assert "test_store.py::test_a_store_reads_back_whatever_its_folder_is_called" in said
    assert "test_unequal_seeds" not in said


@pytest.mark.slow
def test_tests_of_a_fault_are_run_and_shown_as_they_ended(capsys: pytest.CaptureFixture[str]):
    assert main(["22", "--run"]) == 0
    assert "passed, " in capsys.readouterr().out
