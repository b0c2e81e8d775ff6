# %% [markdown]
# # Read a phase dashboard
#
# When do attention heads change, how sure is that, and which heads carry it? From the store that
# `launch_a_sweep.py` makes: run that first, in the same folder.

# %% What was found, in sentences. Brackets are between checkpoints: (16, 32] is after 16, by 32.
import tracker

results = tracker.open_store("example-store")
report = tracker.analyse(results)
for sentence in report["summary"]:
    print(sentence)

# %% The same as numbers: every change of every run, with its interval and confidence
for run_found in report["phases"]:
    for change in run_found["change_points"]:
        print(
            run_found["model"],
            run_found["seed"],
            change["step_low"],
            change["step_high"],
            change["confidence"],
        )

# %% The page: curves, head maps, spectra, what moves before and after each change. One file, no server.
page = tracker.dashboard(results, "example-store/dashboard.html", report)
print(f"open {page}")

# %% Its curves as a figure for a paper
figures = tracker.figures(results, report)
figures["phases"].savefig("example-phases.png", dpi=110)
figures["phases"]

# %% The heads that moved most between two checkpoints
import polars as pl

heads = results.heads().filter(pl.col("model") == "0.2m", pl.col("seed") == 0)
first, last = (heads.filter(pl.col("step") == step) for step in (0, 64))
moved = (
    first.join(last, on=["layer", "head"], suffix="_last")
    .select("layer", "head", moved=pl.col("spectral_entropy_last") - pl.col("spectral_entropy"))
    .sort(pl.col("moved").abs(), descending=True)
)
print(moved.head(5))
