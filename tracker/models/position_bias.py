"""GPT-NeoX whose rotary embedding is off, with another position encoding in its place, or none.

All of these have one body, so that what differs between two of them is how they encode positions:
``learned`` adds a table of positions to the token embedding; ``alibi`` and ``relative`` add a bias to the
attention scores; ``none`` leaves order to the causal mask. The model type is known to transformers wherever
tracker is imported, and nowhere else: a checkpoint needs no code of its own.

Legend: B sequences, H heads, Q queries, K keys.
"""

import math
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXModel

MODEL_TYPE = "tracker_gpt_neox"
ENCODINGS = ("learned", "alibi", "relative", "none")


@strict
class PositionedNeoXConfig(GPTNeoXConfig):
    """A GPT-NeoX configuration that says how positions are encoded."""

    model_type = MODEL_TYPE
    position_encoding: str = "none"
    relative_buckets: int = 32
    """Of ``relative``: number of buckets of distances (T5's default)."""
    relative_distance: int = 128
    """Of ``relative``: from this distance on, all fall into the last one (T5's default)."""

    def validate_position_encoding(self) -> None:
        """Refuse an unknown encoding; called when the configuration is made."""
        if self.position_encoding not in ENCODINGS:
            raise ValueError(f"position_encoding={self.position_encoding}: must be one of {ENCODINGS}")


def alibi_slopes(heads: int) -> Tensor:
    """Return the slope of each head's linear bias, shape (heads,): a geometric sequence from 2^(-8/heads).

    For a number that is no power of two, those of the next lower power, then every other one of the next
    higher. Source: Press et al., arXiv 2108.12409, section 3 and the authors' code.
    """
    lower = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / lower) for i in range(lower)]
    between = [2 ** (-8 * (i + 1) / (2 * lower)) for i in range(0, 2 * lower, 2)]
    return torch.tensor((slopes + between)[:heads])


def relative_bucket(distance: Tensor, buckets: int, furthest: int) -> Tensor:
    """Return the bucket of each distance q - k: one each up to half of them, then logarithmic.

    Args:
        distance: int64, any shape; keys after the query count as distance 0.
        buckets, furthest: as in the configuration.

    Source: Raffel et al., arXiv 1910.10683, section 2.1; as T5's decoder.
    """
    distance = distance.clamp(min=0)
    exact = buckets // 2
    ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(furthest / exact)
    far = (exact + (ratio * (buckets - exact)).to(torch.long)).clamp(max=buckets - 1)
    return torch.where(distance < exact, distance, far)


class PositionedNeoXModel(GPTNeoXModel):
    """The body: GPT-NeoX's own, given positions in its embeddings or in its attention mask."""

    config_class = PositionedNeoXConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.position_encoding == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        elif config.position_encoding == "relative":
            self.relative_bias = nn.Embedding(config.relative_buckets, config.num_attention_heads)
        self.post_init()

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As ``GPTNeoXModel.forward``; positions count from the first token, padding included."""
        embeds = self.embed_in(input_ids) if inputs_embeds is None else inputs_embeds
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        at_Q = past + torch.arange(embeds.shape[1], device=embeds.device)
        if self.config.position_encoding == "learned":
            embeds = embeds + self.embed_positions(at_Q if position_ids is None else position_ids)
        return super().forward(
            attention_mask=self._mask(at_Q, attention_mask, embeds.dtype),
            position_ids=position_ids,  # pyright: ignore[reportArgumentType]
            inputs_embeds=embeds,
            past_key_values=past_key_values,
            **kwargs,
        )

    def _mask(self, at_Q: Tensor, attention_mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        """What is added to the scores: the bias, and the lowest number where a key must not be seen.

        Shape (1 or B, 1 or H, Q, K). transformers passes a mask of four dimensions on as it is.
        """
        distance_QK = at_Q[:, None] - torch.arange(int(at_Q[-1]) + 1, device=at_Q.device)
        hidden = (distance_QK < 0)[None, None]
        if attention_mask is not None:
            hidden = hidden | (attention_mask[:, None, None, :] == 0)
        return self._bias(distance_QK).to(dtype).masked_fill(hidden, torch.finfo(dtype).min)

    def _bias(self, distance_QK: Tensor) -> Tensor:
        config: Any = self.config
        if config.position_encoding == "alibi":
            slopes_H = alibi_slopes(config.num_attention_heads).to(distance_QK.device)
            return (-slopes_H[:, None, None] * distance_QK)[None]
        if config.position_encoding == "relative":
            bucket_QK = relative_bucket(distance_QK, config.relative_buckets, config.relative_distance)
            return self.relative_bias(bucket_QK).permute(2, 0, 1)[None]
        return torch.zeros(1, 1, *distance_QK.shape, device=distance_QK.device)


class PositionedNeoXForCausalLM(GPTNeoXForCausalLM):
    """The body with GPT-NeoX's vocabulary head."""

    config_class = PositionedNeoXConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.gpt_neox = PositionedNeoXModel(config)
        self.post_init()


AutoConfig.register(MODEL_TYPE, PositionedNeoXConfig)
AutoModel.register(PositionedNeoXConfig, PositionedNeoXModel)
AutoModelForCausalLM.register(PositionedNeoXConfig, PositionedNeoXForCausalLM)
