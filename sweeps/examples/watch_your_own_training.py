# %% [markdown]
# # Watch your own training
#
# A loop of your own, watched while it runs. Measuring takes at most 5 % of the training's time unless you
# say otherwise, and changes nothing that is trained: not one random number, not one gradient.

# %% Any transformers causal language model, any optimizer
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import tracker

torch.manual_seed(0)
shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=256, **shape))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
words = b"the cat sat on the mat and the dog sat on the log. " * 200
text = torch.frombuffer(bytearray(words), dtype=torch.uint8)
batches = text[: len(text) // 64 * 64].view(-1, 64).long()
probe = batches[:8]  # or tokenizer=..., which reads the default probe

# %% One line before the loop, one in it
STEPS = 60
with tracker.watch(
    model, probe, store="own-run", name="cat", every=10, total_steps=STEPS, share=None  # 0.05 for a real run
) as watch:  # fmt: skip
    for step in range(1, STEPS + 1):
        ids = batches[torch.randint(len(batches), (8,))]
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        watch(step, loss=loss.item())
print(watch.account)

# %% With transformers.Trainer it is a callback instead:
# Trainer(..., callbacks=[tracker.TrackerCallback(tokenizer=tokenizer, store="own-run", every=100)])

# %% What it has written is a store like any other
results = tracker.open_store("own-run")
curve = results.checkpoints().sort("step").select("step", "loss", "spectral_entropy", "positional_entropy")
print(curve)
report = tracker.analyse(results)
print(*report["summary"], sep="\n")
page = tracker.dashboard(results, "own-run/dashboard.html", report)

# %% One model alone, as it is now
measured = tracker.track(model, probe)
print(measured.named_heads())
measured  # in a notebook: its metrics, its heads that have a name, and a figure
