"""Weights measured without a forward pass: layouts against the models themselves, figures against numpy."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from test_models_families import FAMILIES, GROUPED, HEADS, LAYERS, USUAL, WIDTH, WORDS
from transformers import AutoConfig, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from tracker.errors import CheckpointError
from tracker.measurement.weights import WeightMeter, WeightTables
from tracker.metrics.weights import product_singular_values, singular_values, stable_rank
from tracker.models.architecture import auto_class
from tracker.models.attention_modules import attention_modules_by_name
from tracker.models.layer_weights import Heads, LayerReader

MORE: dict[str, dict[str, Any]] = {
    "phi3": GROUPED | {"partial_rotary_factor": 0.5},
    "phi": {"partial_rotary_factor": 0.5},
    "gpt_bigcode": {"n_positions": 48},
    "gpt_bigcode heads": {"n_positions": 48, "multi_query": False},
    "persimmon": {},
    "modernbert": {"global_attn_every_n_layers": 2},
    "cohere": GROUPED,
    "glm": GROUPED | {"head_dim": 8},
    "smollm3": GROUPED | {"no_rope_layers": [1, 0, 1], "pad_token_id": 0},
}  # fmt: skip
KNOWN = {**FAMILIES, **MORE}
UNKNOWN = {"codegen": FAMILIES["codegen"]}
NO_QK = ("qwen3", "gemma2", "olmo2", "persimmon")
"""Norms, or a cap, between what the weights give and the attention."""


def configuration(family: str) -> Any:
    kind = family.split()[0]
    usual = {key: value for key, value in USUAL.items() if not (kind == "mpt" and key == "hidden_size")}
    usual |= {"pad_token_id": 0, "decoder_start_token_id": 0} if kind == "t5" else {}
    return AutoConfig.for_model(kind, **(usual | KNOWN[family]))


@cache
def built(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = configuration(family)
    model = auto_class(config).from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 2:
                weights.normal_(0, 0.3)
            elif name.endswith("bias"):
                weights.zero_()
    return model


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory):
    """By family the folder of its checkpoint."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def save(family: str) -> Path:
        built(family).save_pretrained(root / family)
        return root / family

    return save


def heads_in(folder: Path) -> list[Heads]:
    found = [layer.heads for layer in LayerReader().layers(folder)]
    assert all(each is not None for each in found)
    return found  # type: ignore[return-value]


def one_pass(model: PreTrainedModel, ids: torch.Tensor, **options: Any) -> tuple[list, list, tuple]:
    """What goes into each self-attention module, what comes out, and the attention in between."""
    inward, outward, hooks = [], [], []

    def look(module: Any, given: tuple, named: dict, found: Any) -> None:
        inward.append(given[0] if given else named["hidden_states"])
        out = found[0] if isinstance(found, tuple) else found
        outward.append(out - given[1] if type(module).__name__ == "BloomAttention" else out)  # its residual

    for module in attention_modules_by_name(model).values():
        hooks.append(module.register_forward_hook(look, with_kwargs=True))
    decoder = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        said = model(input_ids=ids, output_attentions=True, **decoder, **options)
    for hook in hooks:
        hook.remove()
    attention = said.attentions if not decoder else (*said.encoder_attentions, *said.decoder_attentions)
    return inward, outward, attention


@pytest.mark.parametrize("family", [name for name in KNOWN if name not in UNKNOWN])
def test_values_and_outputs_are_those_of_the_model(family: str, saved):
    """A single token attends to itself alone: its attention's output is ``sum Wo Wv x``."""
    if family == "bert":
        pytest.skip("its output matrix lies outside of its attention")
    inward, outward, _ = one_pass(built(family), torch.randint(0, WORDS, (5, 1)))
    for heads, given, found in zip(heads_in(saved(family)), inward, outward, strict=True):
        values = heads.of_queries(heads.value)
        made = torch.einsum("hvd,hve,bne->bnd", heads.output, values, given)
        assert torch.allclose(made, found, atol=1e-4), family


@pytest.mark.parametrize("family", [name for name in KNOWN if name not in (*UNKNOWN, *NO_QK)])
def test_queries_and_keys_are_those_of_the_model(family: str, saved):
    """At one position, ``log(a_0 / a_1)`` of the second of two tokens is ``x_1 Wq^T Wk (x_0 - x_1)``."""
    model, ids = built(family), torch.randint(0, WORDS, (24, 2), generator=torch.Generator().manual_seed(1))
    rotary = LayerReader().rotation(saved(family)) is not None and family != "modernbert"
    here = {"position_ids": torch.zeros_like(ids)} if rotary or family == "modernbert" else {}
    inward, _, attention = one_pass(model, ids, **here)
    slopes = []
    for heads, given, maps in zip(heads_in(saved(family)), inward, attention, strict=True):
        keys = heads.of_queries(heads.key)
        score = torch.einsum("hvd,hve,bd,be->hb", heads.query, keys, given[:, 1], given[:, 0] - given[:, 1])
        wanted = (maps[:, :, 1, 0].log() - maps[:, :, 1, 1].log()).T
        for x, y in zip(score.double().numpy(), wanted.double().numpy(), strict=True):
            slope, constant = np.polyfit(x, y, 1)  # the constant is a bias of positions
            assert np.abs(slope * x + constant - y).max() < 1e-3 * (1 + np.abs(y).max()), family
            slopes.append(slope)
    assert max(slopes) - min(slopes) < 1e-3
    assert min(slopes) > 0.05


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "phi3", "gptj", "cohere", "glm", "phi", "persimmon"])
def test_dimensions_that_rotate_together_are_those_of_the_model(family: str, saved):
    """A vector of one dimension, rotated, lies in that dimension and its partner."""
    rotation = LayerReader().rotation(saved(family))
    assert rotation is not None
    model = built(family)
    d_head = heads_in(saved(family))[0].query.shape[1]
    code = __import__(type(model).__module__, fromlist=["x"])
    basis = torch.eye(d_head).view(d_head, 1, 1, d_head)
    if family == "gptj":
        table = code.create_sinusoidal_positions(8, rotation.dims)[5]
        sin, cos = (each.view(1, 1, -1) for each in table.chunk(2))
        part = basis[: rotation.dims, ..., : rotation.dims]
        turned = code.apply_rotary_pos_emb(part, sin, cos)[:, 0, 0]
    else:
        rotary = next(
            module for module in model.modules() if type(module).__name__.endswith("RotaryEmbedding")
        )
        cos, sin = rotary(torch.zeros(1, 1, d_head), torch.tensor([[5]]))
        part = basis[..., : rotation.dims] if family in ("phi", "persimmon") else basis
        turned = code.apply_rotary_pos_emb(part, part, cos, sin)[0][:, 0, 0]
    half = rotation.dims // 2
    for at in range(rotation.dims):
        partner = (at ^ 1) if rotation.interleaved else (at + half) % rotation.dims
        assert set(turned[at].abs().gt(1e-7).nonzero().flatten().tolist()) <= {at, partner}
        assert turned[at].norm() == pytest.approx(1, abs=1e-5)
    # The first pair is the fastest.
    assert turned[0, 0] == pytest.approx(math.cos(5.0), abs=1e-4)


def entropy_rank(singular: np.ndarray) -> float:
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def reference(matrix: torch.Tensor, part: str) -> dict[str, float]:
    exact = matrix.double().numpy()
    singular = np.linalg.svd(exact, compute_uv=False)
    return {
        f"stable_rank_{part}": float((singular**2).sum() / singular[0] ** 2),
        f"effective_rank_{part}": entropy_rank(singular),
        f"spectral_norm_{part}": float(singular[0]),
        f"outlier_ratio_{part}": float(np.abs(exact).max() / exact.std()),
    }


def naive_heads(heads: Heads, head: int) -> dict[str, float]:
    shared = head * len(heads.key) // len(heads.query)
    query, key, value = heads.query[head], heads.key[shared], heads.value[shared]
    qk = query.double().T @ key.double()
    ov = heads.output[head].double().T @ value.double()
    found = reference(qk, "qk") | reference(ov, "ov")
    return {name: each for name, each in found.items() if not name.startswith("outlier")}


def profile(weights: torch.Tensor, dims: int, interleaved: bool) -> np.ndarray:
    pairs = [(2 * f, 2 * f + 1) if interleaved else (f, f + dims // 2) for f in range(dims // 2)]
    norms = np.array([np.linalg.norm(weights[list(pair)].double().numpy()) for pair in pairs])
    return norms / norms.sum()


@pytest.mark.parametrize("family", [name for name in KNOWN if name not in UNKNOWN])
def test_figures_are_those_of_numpy(family: str, saved):
    folder = saved(family)
    found = WeightMeter().measure(folder)
    assert found.note is None
    rows = found.heads.to_dicts()
    layers = found.layers.to_dicts()
    rotation = LayerReader().rotation(folder)
    assert len(rows) == len(layers) * HEADS
    for number, layer in enumerate(LayerReader().layers(folder)):
        heads = layer.heads
        assert heads is not None
        whole = {"q": heads.query, "k": heads.key, "v": heads.value, "o": heads.output}
        matrices = {part: each.reshape(-1, each.shape[-1]) for part, each in whole.items()}
        matrices |= {f"mlp_{part}": each for part, each in layer.mlp.items()}
        for part, matrix in matrices.items():
            for name, wanted in reference(matrix, part).items():
                assert layers[number][name] == pytest.approx(wanted, rel=1e-6), name
        for head in range(HEADS):
            row = rows[number * HEADS + head]
            assert (row["layer"], row["head"]) == (number, head)
            for name, wanted in naive_heads(heads, head).items():
                assert row[name] == pytest.approx(wanted, rel=1e-6), name
            turns = rotation is not None and rotation.layers[number]
            assert (row["rotary_profile_q"] is not None) == turns
            if rotation is not None and turns:
                shared = head * len(heads.key) // HEADS
                for part, weights in (("q", heads.query[head]), ("k", heads.key[shared])):
                    shares = profile(weights, rotation.dims, rotation.interleaved)
                    assert row[f"rotary_profile_{part}"] == pytest.approx(shares.tolist(), rel=1e-9)
                    place = float(shares @ np.arange(len(shares))) / max(len(shares) - 1, 1)
                    if len(shares) > 1:
                        assert row[f"rotary_place_{part}"] == pytest.approx(place, rel=1e-9)


GATED = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "olmo2",
    "phi3",
    "modernbert",
    "cohere",
    "glm",
    "smollm3",
)


@pytest.mark.parametrize("family", [name for name in KNOWN if name not in UNKNOWN])
def test_an_mlp_is_found_in_every_family(family: str, saved):
    for layer in LayerReader().layers(saved(family)):
        assert set(layer.mlp) == ({"in", "out", "gate"} if family in GATED else {"in", "out"})
        assert layer.mlp["in"].numel() == layer.mlp["out"].numel()
        if "gate" in layer.mlp:
            assert not torch.equal(layer.mlp["gate"], layer.mlp["in"])


def test_a_family_whose_layout_is_not_known_has_null_columns_and_one_line(saved):
    found = WeightMeter().measure(saved("codegen"))
    assert found.note == "weights: the layout of CodeGenForCausalLM's attention is not known"
    assert found.layers["stable_rank_q"].null_count() == LAYERS
    assert found.layers["stable_rank_mlp_in"].is_finite().all()


# theory, accuracy, damage


def theory(n: int, m: int) -> float:
    """Stable rank of an n x m Gaussian matrix, as sizes go to infinity (Marchenko and Pastur)."""
    return n * m / (math.sqrt(n) + math.sqrt(m)) ** 2


def finite(n: int, m: int) -> float:
    """The same where sizes are finite: the largest eigenvalue lies below its limit (Johnstone 2001; the mean
    of Tracy and Widom's law for real matrices is -1.2065)."""
    sides = math.sqrt(n - 1) + math.sqrt(m)
    largest = sides**2 - 1.2065 * sides * (1 / math.sqrt(n - 1) + 1 / math.sqrt(m)) ** (1 / 3)
    return n * m / largest


def fresh_ranks(folder: Path, width: int, layers: int) -> dict[str, float]:
    """Mean stable ranks over the layers of a freshly initialised GPT-NeoX."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=64, hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        intermediate_size=4 * width if layers > 1 else 64,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    found = WeightMeter().measure(folder).checkpoint.row(0, named=True)
    return {part: found[f"stable_rank_{part}"] for part in ("q", "k", "v", "o", "mlp_in", "mlp_out")}


@pytest.mark.slow
def test_stable_rank_at_initialisation_is_that_of_theory(tmp_path: Path):
    """Pythia 1B's width within 1 % of the limit, 160M's within 1 % of what finite sizes make of it."""
    wide = fresh_ranks(tmp_path / "1b", 2048, 1)
    assert np.mean([wide[part] for part in "qkvo"]) == pytest.approx(theory(2048, 2048), rel=0.01)
    for part, found in fresh_ranks(tmp_path / "160m", 768, 6).items():
        m = 4 * 768 if part.startswith("mlp") else 768
        assert found == pytest.approx(finite(768, m), rel=0.01), part


def test_small_singular_values_are_right_to_1e_8_of_the_largest():
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(96, 96)))
    right, _ = np.linalg.qr(rng.normal(size=(160, 96)))
    exact = np.geomspace(1, 1e-9, 96)
    found = singular_values(torch.from_numpy(left * exact @ right.T)).flip(0).numpy()
    assert np.abs(found - exact).max() < 3e-8
    tall = singular_values(torch.from_numpy((left * exact @ right.T).T.copy())).flip(0).numpy()
    assert np.abs(tall - exact).max() < 3e-8


def test_products_are_those_of_the_matrices_for_factors_that_are_nearly_dependent():
    rng = np.random.default_rng(0)
    left = rng.normal(size=(3, 16, 64)) * np.geomspace(1, 1e-6, 16)[:, None]
    right = rng.normal(size=(3, 16, 64))
    found = product_singular_values(torch.from_numpy(left), torch.from_numpy(right))
    for at in range(3):
        wanted = np.linalg.svd(left[at].T @ right[at], compute_uv=False)[:16][::-1]
        assert np.abs(found[at].numpy() - wanted).max() < 1e-7 * wanted.max()


def test_a_matrix_of_zeros_has_no_rank():
    assert stable_rank(singular_values(torch.zeros(4, 6))).isnan()


@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
def test_every_form_of_file_gives_the_same(form: str, tmp_path: Path):
    from saved_models import save

    tables: list[WeightTables] = [
        WeightMeter().measure(save(tmp_path / each, each, seed=3)) for each in ("safetensors", form)
    ]
    for table in ("heads", "layers", "checkpoint"):
        assert getattr(tables[0], table).equals(getattr(tables[1], table))
    assert tables[0].layers["stable_rank_q"].is_finite().all()


def test_nan_is_an_error_that_names_the_tensor(tmp_path: Path):
    model = built("llama")
    state = {name: each.clone() for name, each in model.state_dict().items()}
    state["model.layers.1.self_attn.k_proj.weight"][0, 0] = float("nan")
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(
        CheckpointError, match=r"NaN or infinite values in model\.layers\.1\.self_attn\.k_proj"
    ):
        WeightMeter().measure(tmp_path)


def test_only_the_matrices_are_read(saved, monkeypatch: pytest.MonkeyPatch):
    """Neither embeddings nor norms; each matrix once."""
    import tracker.models.layer_weights as module

    read: list[str] = []

    def opened(file: Path):
        from contextlib import contextmanager

        from tracker.models.tensor_reader import opened as real

        @contextmanager
        def watched():
            with real(file) as get:
                yield lambda name: (read.append(name), get(name))[1]

        return watched()

    monkeypatch.setattr(module, "opened", opened)
    list(LayerReader().layers(saved("llama")))
    assert len(read) == len(set(read)) == 7 * LAYERS
    assert all("proj" in name for name in read)


def test_the_next_checkpoint_of_an_architecture_builds_no_model(saved):
    reader = LayerReader()
    first = reader.model(saved("llama"))
    assert reader.model(saved("llama")) is first
    assert reader.model(saved("gpt2")) is not first


def test_summary_is_over_layers_and_heads(saved):
    found = WeightMeter().measure(saved("llama"))
    row = found.checkpoint.row(0, named=True)
    assert row["stable_rank_q"] == pytest.approx(found.layers["stable_rank_q"].mean())
    assert row["stable_rank_qk"] == pytest.approx(found.heads["stable_rank_qk"].mean())
    assert row["stable_rank_qk_q25"] == pytest.approx(np.quantile(found.heads["stable_rank_qk"], 0.25))
    assert found.heads.select(pl.len()).item() == LAYERS * HEADS
    assert WIDTH == 32
