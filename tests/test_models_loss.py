"""The loss where logits are more than a matrix on the body's states, and of models without a head."""

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as F

import tracker

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
FAMILIES = {
    "RobertaForCausalLM": ("RobertaConfig", {"is_decoder": True}),
    "BertLMHeadModel": ("BertConfig", {"is_decoder": True}),
    "CamembertForCausalLM": ("CamembertConfig", {"is_decoder": True}),
    "ElectraForCausalLM": ("ElectraConfig", {"is_decoder": True, "embedding_size": 16}),
    "ModernBertDecoderForCausalLM": ("ModernBertDecoderConfig", {}),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", {}),
    "LlamaForCausalLM": ("LlamaConfig", {}),
    "GraniteForCausalLM": ("GraniteConfig", {"logits_scaling": 4.0}),
    "CohereForCausalLM": ("CohereConfig", {"logit_scale": 0.25}),
    "Gemma2ForCausalLM": (
        "Gemma2Config",
        {"final_logit_softcapping": 2.0, "head_dim": 16, "num_key_value_heads": 1},
    ),
}


def built(name: str, config: str, more: dict[str, object]) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**SMALL, **more)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))  # biases and norms of a trained model are no zeros
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_is_that_of_the_models_own_logits(name: str):
    compare_loss(built(name, *FAMILIES[name]))


def test_a_head_of_zeros_says_nothing_of_how_logits_are_made():
    """As at step 0 of nanochat; its later checkpoints have the same configuration."""
    model = built("CamembertForCausalLM", "CamembertConfig", {"is_decoder": True, "layer_norm_eps": 1e-6})
    trained = {name: each.clone() for name, each in model.state_dict().items()}
    with torch.no_grad():
        for each in model.lm_head.decoder.parameters():
            each.zero_()
    compare_loss(model)
    model.load_state_dict(trained)
    compare_loss(model)


def compare_loss(model: transformers.PreTrainedModel) -> None:
    ids = torch.randint(3, 96, (3, 24), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits
    expected = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none").mean(1)
    found = tracker.track(model, tokens=ids.numpy()).sequences.sort("sequence")["loss"].to_numpy()
    assert found == pytest.approx(expected.numpy(), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "config"),
    [("GPTNeoXModel", "GPTNeoXConfig"), ("GPTNeoXForSequenceClassification", "GPTNeoXConfig")],
)
def test_without_a_vocabulary_head_attention_is_measured_and_the_loss_is_null(name: str, config: str):
    whole = built("GPTNeoXForCausalLM", config, {})
    bare = built(name, config, {})
    body = bare if name == "GPTNeoXModel" else bare.base_model
    body.load_state_dict(whole.base_model.state_dict())
    ids = np.random.default_rng(0).integers(3, 96, (2, 24))
    found, expected = tracker.track(bare, tokens=ids), tracker.track(whole, tokens=ids)
    assert found.heads["spectral_entropy"].to_list() == expected.heads["spectral_entropy"].to_list()
    assert found.sequences["loss"].is_null().all()
    assert "no vocabulary head" in found.checkpoint["reason"][0]
