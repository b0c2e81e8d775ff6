"""A suite of many checkpoints on a loopback hub, sweeps of it as processes of their own, and a watch."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import tracker as package

REPO = "lab/pythia-some"
PROBE = ("probe.ids=ids.npy", "probe.n=48", "sink=none", "engine.threads=1")
VOLATILE = ("seconds", "peak_bytes")
"""Columns that no two measurements share."""


def make_suite(
    folder: Path, steps: range | list[int], repo: str = REPO, *, sequences: int = 4, **sizes: int
) -> int:
    """Puts a suite of small random models on the hub below ``folder``, and token ids beside it.

    Returns:
        Bytes of the weights of one checkpoint.
    """
    fields = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    fields |= {"intermediate_size": 64, "max_position_embeddings": 64}
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**(fields | sizes)))
    place = folder / "hub" / repo
    for step in steps:
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(torch.randn_like(weights) * 0.01)
        model.save_pretrained(place / f"step{step}")
        (place / f"step{step}" / "generation_config.json").unlink(missing_ok=True)
    model.save_pretrained(place / "main")
    np.save(folder / "ids.npy", np.random.default_rng(0).integers(0, 128, (sequences, 48)))
    return (place / "main" / "model.safetensors").stat().st_size


def start_sweep(folder: Path, url: str, *overrides: str, repo: str = REPO) -> subprocess.Popen[str]:
    """``tracker sweep`` of the suite, its cache at ``folder/cache``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "HF_"))}
    kept |= {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    kept |= {"PYTHONFAULTHANDLER": "1", "HF_ENDPOINT": url, "HF_HOME": str(folder / "cache")}
    number = len(np.load(folder / "ids.npy"))
    hub = () if repo == "none" else ("suite=hub", f"suite.repo={repo}")
    request = ("sweep", *hub, f"probe.sequences={number}", *PROBE, *overrides)
    return subprocess.Popen(
        [sys.executable, "-m", "tracker", *request],
        cwd=folder, env=kept, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finished(process: subprocess.Popen[str], code: int = 0, timeout: float = 250) -> str:
    """Waits for a sweep's end, which must be ``code``; returns what it said."""
    said, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, said
    return said


def records(store: Path) -> list[Path]:
    """The record folders of a store."""
    return sorted(store.glob("checkpoints/*/*/seed-*/step-*.*"))


def last_record(store: Path) -> float:
    """When the last record was put in place, by the clock of files."""
    return max((place / "checkpoint.parquet").stat().st_mtime for place in records(store))


def tables(store: Path) -> dict[str, pl.DataFrame]:
    """All tables of a store without what no two measurements share, in a fixed order."""
    results = package.open_store(store)
    found = {name: getattr(results, name)() for name in ("heads", "layers", "sequences", "checkpoints")}
    kept = {name: frame.drop(VOLATILE, strict=False) for name, frame in found.items()}
    order = ["step", "layer", "head", "sequence"]
    return {
        name: frame.sort([each for each in order if each in frame.columns]) for name, frame in kept.items()
    }


def left_in(cache: Path) -> list[str]:
    """Every file and folder of a cache, except the library's tag and tracker's own lock with its folders."""
    usual = {"hub", "hub/CACHEDIR.TAG", "hub/.locks", "hub/.locks/tracker", "hub/.locks/tracker/lock"}
    return sorted({path.relative_to(cache).as_posix() for path in cache.rglob("*")} - usual)


class Watch:
    """Looks at a folder again and again and keeps the most that it has taken on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.most, self.looks = folder, 0, 0
        self._end = threading.Event()

    def look(self) -> None:
        taken = 0
        for root, _, names in os.walk(self.folder):
            for name in names:
                try:
                    taken += os.lstat(os.path.join(root, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
        self.most, self.looks = max(self.most, taken), self.looks + 1

    def run(self) -> None:
        while not self._end.wait(0.01):
            self.look()

    @contextmanager
    def running(self) -> Iterator["Watch"]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield self
        finally:
            self._end.set()
            thread.join()


def wait_for(happened, process: subprocess.Popen[str], timeout: float = 200) -> None:
    """Waits until ``happened()``, as long as a process runs; else shows where its threads stand."""
    end = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > end:
            process.send_signal(signal.SIGABRT)
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
