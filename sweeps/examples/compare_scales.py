# %% [markdown]
# # Compare scales
#
# What is different in a larger model, is the difference sure, and from which size on? From the store that
# `launch_a_sweep.py` makes: run that first, in the same folder.

# %% At the end of training, side by side and against the paper's tables
import tracker

results = tracker.open_store("example-store")
compared = tracker.compare(results)
for sentence in compared["sentences"]:
    print(sentence)

# %% At one step, or at equal tokens: compare(results, at="tokens", tokens=100_000)
early = tracker.compare(results, at="step", step=16)
for difference in early["differences"]:
    if difference["matters"]:
        print(difference["metric"], difference["from"], difference["to"], round(difference["difference"], 3))

# %% Is there a size from which on a metric is another? Two sizes are too few to say.
report = tracker.analyse(results)
print([sentence for sentence in report["summary"] if "size" in sentence])

# %% The figure over size, and what it draws
figure = tracker.figures(results, report)["scale"]
figure.savefig("example-scale.png", dpi=110)
over_size = tracker.figure_data(results, report)["scale"]
print(over_size.head())
