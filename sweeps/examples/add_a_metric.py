# %% [markdown]
# # Add a metric
#
# One function of attention rows. It is tried on synthetic rows when it is registered (shape, dtype, range,
# NaN, batches, precision), and from then on it has columns, spreads, a key in W&B and a place in the
# dashboard. Put it into a file of its own and sweeps measure it: `spectrum.metrics=[add_a_metric.py]`.

# %% Twenty lines
import torch

import tracker


@tracker.metric(title="Attention distance", unit="tokens", low=0, source="arXiv 1906.04284")
def attention_distance(rows: torch.Tensor) -> torch.Tensor:
    """Mean distance from the last key that is attended to, back to where attention lies."""
    keys = torch.arange(rows.shape[-1], device=rows.device, dtype=rows.dtype)
    last = torch.where(rows > 0, keys, -1.0).amax(-1)
    return last - (rows * keys).sum(-1)


print(tracker.try_metric(attention_distance, low=0))

# %% Measured like every other
if __name__ == "__main__":
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, **shape))
    ids = torch.randint(256, (4, 64))
    measured = tracker.track(model, ids)
    print(measured.heads.select("layer", "head", "attention_distance", "attention_distance_std"))

    # Uniform attention of query q over keys 0 to q lies q / 2 back on average: 15.75 over 64 queries.
    print(measured.summary["attention_distance"].item())

    with tracker.watch(model, ids, store="custom-metric", name="mine") as watch:
        watch(0)
    results = tracker.open_store("custom-metric")
    tracker.dashboard(results, "custom-metric/dashboard.html")
    from tracker.views import dashboard_data

    entries = [
        each for each in dashboard_data(results, None)["metrics"] if each["group"].startswith("Custom")
    ]
    print([each["title"] for each in entries])
