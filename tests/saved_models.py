"""Tiny random models saved in every form in which Pythia's repositories and users' folders hold them."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

# Keys and spelling of EleutherAI/pythia-70m's config.json (sizes are ours): rotary_pct, torch_dtype.
OLD_CONFIG = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 64,
    "model_type": "gpt_neox",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.24.0",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 128,
}
FORMS = ("safetensors", "sharded safetensors", "bin", "sharded bin", "both")


def save(folder: Path, form: str = "safetensors", seed: int = 0) -> Path:
    """Saves a float16 model of 20 thousand parameters, random from ``seed``, in one of ``FORMS``."""
    torch.manual_seed(seed)
    fields = {key: value for key, value in OLD_CONFIG.items() if key != "torch_dtype"}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**fields)).half()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size="20KB" if form == "sharded safetensors" else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps(OLD_CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "seed": seed}))
    if form in ("bin", "sharded bin", "both"):
        safe = folder / "model.safetensors"
        _save_bin(folder, load_file(safe), shards=2 if form == "sharded bin" else 1)
        if form == "both":
            # So that a test sees which of the two was read.
            save_file({name: tensor + 1 for name, tensor in load_file(safe).items()}, safe, {"format": "pt"})
        else:
            safe.unlink()
    return folder


def load(folder: Path) -> dict[str, torch.Tensor]:
    """The model's tensors as transformers loads them, in float32."""
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


def expected(seed: int, shift: float = 0.0) -> dict[str, torch.Tensor]:
    """What ``load`` must return for a model saved with ``seed``."""
    torch.manual_seed(seed)
    fields = {key: value for key, value in OLD_CONFIG.items() if key != "torch_dtype"}
    state = GPTNeoXForCausalLM(GPTNeoXConfig(**fields)).half().state_dict()
    return {name: (tensor + shift).float() for name, tensor in state.items()}


def _save_bin(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    names = sorted(tensors)
    files = [f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin" for shard in range(shards)]
    for shard, file in enumerate(files):
        torch.save({name: tensors[name] for name in names[shard::shards]}, folder / file)
    weight_map = {name: files[position % shards] for position, name in enumerate(names)}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
