"""Batches in parallel threads: order, failures; and that threads change no number."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_measure import neox, tokens_for, unit_for

from tracker.errors import CheckpointError
from tracker.measurement.measure import measure
from tracker.measurement.threads import batch_threads, map_in_threads

CPU = torch.device("cpu")


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_items_keep_their_order_and_threads_are_shared():
    seen = []

    def work(item: int) -> int:
        time.sleep(0.01 * (5 - item))
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return item**2

    assert list(map_in_threads(work, range(5), 2)) == [0, 1, 4, 9, 16]
    assert len({ident for ident, _ in seen}) == 2
    assert {threads for _, threads in seen} == {2}
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_a_failure_ends_the_rest_and_the_threads_come_back():
    done = []

    def work(item: int) -> int:
        if item == 1:
            raise CheckpointError("item 1")
        time.sleep(0.02)
        done.append(item)
        return item

    with pytest.raises(CheckpointError, match="item 1"):
        list(map_in_threads(work, range(50), 2))
    assert len(done) < 10
    assert torch.get_num_threads() == 4


def test_a_processor_measures_several_batches_at_a_time_and_a_gpu_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert batch_threads(CPU) == 8
    assert batch_threads(torch.device("cuda")) == 1


@pytest.mark.usefixtures("four_threads")
def test_threads_change_no_number():
    side = measure(unit_for(), neox(), tokens_for())
    torch.set_num_threads(1)
    alone = measure(unit_for(), neox(), tokens_for())
    for name in ("heads", "sequences", "layers"):
        ours, theirs = (getattr(each, name).select("^.*$").to_dict(as_series=False) for each in (side, alone))
        for column, values in theirs.items():
            if column == "spectrum":
                np.testing.assert_allclose(ours[column], values, rtol=1e-4)
            elif isinstance(values[0], float):
                np.testing.assert_allclose(ours[column], values, rtol=1e-4, atol=1e-6, err_msg=column)


@pytest.mark.usefixtures("four_threads")
def test_a_failure_in_a_thread_names_its_layer():
    model = neox()
    with torch.no_grad():
        model.get_parameter("gpt_neox.layers.1.attention.query_key_value.weight")[:] = torch.nan
    with pytest.raises(CheckpointError, match="layer 1 head 0: attention is NaN or infinite"):
        measure(replace(unit_for()), model, tokens_for())


def test_freed_arrays_stay_with_the_process_on_glibc():
    program = (
        "import resource, torch\n"
        "from tracker.measurement.process import keep_freed_memory\n"
        "torch.set_num_threads(1)\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(50):\n"
        "        a = torch.zeros(1 << 20); b = torch.zeros(1 << 20); del a, b\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "torch.zeros(1 << 20); plain = faults(); taken = keep_freed_memory(); faults()\n"
        "print(taken, plain, faults())\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": ""}
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    taken, plain, kept = answer.stdout.split()
    if taken != "True":
        pytest.skip("another C library")
    assert int(kept) < 100 < int(plain)


def test_a_command_keeps_mkl_from_holding_buffers_before_torch_is_there():
    program = (
        "import os, sys; sys.argv[1:] = ['--version']; from tracker.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, os.environ.get('MKL_DISABLE_FAST_MM'))\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": ""}
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert answer.stdout.splitlines()[-1] == "False 1"
