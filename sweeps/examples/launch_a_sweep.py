# %% [markdown]
# # Launch a sweep
#
# Trains two small models, measures each of their checkpoints, and looks at what came out. About a
# minute on one core. The same cell with `suite=pythia` measures the published checkpoints instead.

# %% What would be done? Nothing is trained, fetched or written by `plan`.
import subprocess
import sys

SWEEP = (
    "suite.models=[0.05m,0.2m]", "suite.train_steps=64", "probe.sequences=8",
    "store=example-store", "sink=none", "engine=inline",
)  # fmt: skip
subprocess.run([sys.executable, "-m", "tracker", "plan", *SWEEP], check=True)

# %% Do it. Stop it at any time and run the cell again: it resumes with what is not measured yet.
code = subprocess.run([sys.executable, "-m", "tracker", "sweep", *SWEEP], check=False).returncode
assert code == 0, "a checkpoint has no measurement; the last lines say which, and why"

# %% What is in the store: one row per checkpoint, failed and missing ones included.
import tracker

results = tracker.open_store("example-store")
checkpoints = results.checkpoints().sort("model", "seed", "step")
print(results)
print(checkpoints.select("model", "seed", "step", "status", "loss", "spectral_entropy"))

# %% The same in pandas or DuckDB, where they are installed:
# results.to_pandas("heads")
# results.to_duckdb().sql("select model, step, avg(loss) from checkpoints group by all order by all")
