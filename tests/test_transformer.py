"""Our order of computing the transformer against diffusers', in pieces and in smaller types."""

import copy

import pytest
import torch
from diffusers import CosmosTransformer3DModel

from cosmos_predict25.pipeline.local import transformer as arithmetic
from cosmos_predict25.pipeline.local.denoise import condition_mask, predict_velocities, predict_velocity
from cosmos_predict25.pipeline.local.sizes import KEPT_TOKENS, Chunks
from cosmos_predict25.pipeline.local.transformer import CosmosTransformer, Kernels, use_less_memory

CHUNKS = [Chunks(), Chunks(5), Chunks(5, 7), Chunks(7, 5), Chunks(1, 1)]
LATENTS = torch.randn(1, 16, 3, 8, 6, generator=torch.Generator().manual_seed(1))
EMBEDS = torch.randn(1, 512, 64, generator=torch.Generator().manual_seed(2))


def stock_transformer(blocks: int = 3, positions: str | None = None, **options) -> CosmosTransformer3DModel:
    torch.manual_seed(0)
    transformer = CosmosTransformer3DModel(
        in_channels=17, num_attention_heads=4, attention_head_dim=32, num_layers=blocks, text_embed_dim=64,
        adaln_lora_dim=16, rope_scale=(1.0, 3.0, 3.0), extra_pos_embed_type=positions, **options,
    )  # fmt: skip
    for parameter in transformer.learnable_pos_embed.parameters() if positions else ():
        parameter.data.normal_()
    return transformer.eval().requires_grad_(False)


@torch.inference_mode()
def stock_velocity(transformer: CosmosTransformer3DModel, timestep: torch.Tensor) -> torch.Tensor:
    dtype = transformer.dtype
    return transformer(
        hidden_states=LATENTS.to(dtype),
        timestep=timestep,
        encoder_hidden_states=EMBEDS.to(dtype),
        condition_mask=condition_mask(LATENTS).to(dtype),
        padding_mask=torch.zeros(1, 1, 8, 6, dtype=dtype),
        return_dict=False,
    )[0].float()


def velocity(transformer: CosmosTransformer, timestep: torch.Tensor, embeds: torch.Tensor = EMBEDS) -> torch.Tensor:
    return predict_velocity(transformer, LATENTS, timestep, embeds, condition_mask(LATENTS))


def ours(transformer: CosmosTransformer3DModel, chunks: Chunks | None = None) -> CosmosTransformer:
    """A copy with the same values, computed as in the pipeline."""
    copied = use_less_memory(copy.deepcopy(transformer))
    copied.chunks = chunks or Chunks()
    return copied


@pytest.mark.parametrize("chunks", CHUNKS, ids=lambda chunks: f"{chunks.tokens} tokens, {chunks.queries} queries")
@pytest.mark.parametrize("positions", [None, "learnable"], ids=["RoPE alone", "learned positions"])
def test_in_pieces_it_is_diffusers(chunks, positions):
    stock = stock_transformer(positions=positions)
    timestep = torch.tensor([0.7])
    difference = (velocity(ours(stock, chunks), timestep) - stock_velocity(stock, timestep)).abs().max().item()
    print(f"\nlargest difference {difference:.1e}", end="")
    assert difference <= 1e-5


@pytest.mark.parametrize("chunks", CHUNKS[:3], ids=lambda chunks: f"{chunks.tokens} tokens, {chunks.queries} queries")
def test_a_timestep_for_each_latent_frame_is_diffusers(chunks):
    stock = stock_transformer()
    timestep = torch.tensor([0.0001, 0.7, 0.3])
    expected = stock_velocity(stock, timestep.view(1, 1, 3, 1, 1))
    torch.testing.assert_close(velocity(ours(stock, chunks), timestep), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunks", CHUNKS, ids=lambda chunks: f"{chunks.tokens} tokens, {chunks.queries} queries")
def test_the_modulation_of_a_latent_frame_is_not_copied_to_its_tokens(chunks):
    """Each norm gets a row per latent frame, and computes every token once."""
    tokens, rows = [], []

    class Watched(Kernels):
        def adaptive_norm(self, x, scale, shift, eps):
            tokens.append(x.numel() // x.shape[-1])
            rows.append((scale.shape[-2], shift.shape[-2]))
            return super().adaptive_norm(x, scale, shift, eps)

    transformer = ours(stock_transformer(), chunks)
    transformer.kernels = Watched()
    velocity(transformer, torch.tensor([0.0001, 0.7, 0.3]))
    assert set(rows) == {(1, 1)}
    assert sum(tokens) == (3 * 4 + 1) * LATENTS[0, 0].numel() // 4  # 4 norms in each of 3 blocks, and the last layer's


@pytest.mark.parametrize("timestep", [[0.7], [0.0001, 0.7, 0.3]], ids=["text", "known frames"])
@pytest.mark.parametrize("positions", [None, "learnable"], ids=["RoPE alone", "learned positions"])
def test_what_two_prompts_share_is_computed_once(positions, timestep):
    transformer, timestep = ours(stock_transformer(positions=positions)), torch.tensor(timestep)
    other = -EMBEDS
    alone = [velocity(transformer, timestep, embeds) for embeds in (EMBEDS, other)]
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    parts = ("time_proj", "rope", "linear_1", "linear_2", "learnable_pos_embed")
    shared = [module for name, module in transformer.named_modules() if name.endswith(parts)]
    counted: list[torch.nn.Module] = []
    for module in shared:
        module.register_forward_pre_hook(lambda module, _: counted.append(module))
    prompts = [transformer.prompt(embeds, LATENTS) for embeds in (EMBEDS, other)]
    together = predict_velocities(transformer, LATENTS, timestep, prompts, condition_mask(LATENTS))
    assert len(shared) > 20
    assert len(counted) == len(set(counted)) == len(shared)
    assert all(made.equal(expected) for made, expected in zip(together, alone, strict=True))


@pytest.mark.parametrize(("most", "times"), [(0, 2), (KEPT_TOKENS, 1)], ids=["a large video", "a small one"])
def test_a_small_videos_prompts_keep_their_keys_and_values_for_all_passes(monkeypatch, most, times):
    monkeypatch.setattr(arithmetic, "KEPT_TOKENS", most)
    transformer, sigmas = ours(stock_transformer()), [torch.tensor([0.7]), torch.tensor([0.3])]
    alone = [[velocity(transformer, sigma, embeds) for embeds in (EMBEDS, -EMBEDS)] for sigma in sigmas]
    counted: list[torch.nn.Module] = []
    layers = [layer for block in transformer.transformer_blocks for layer in (block.attn2.to_k, block.attn2.to_v)]
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, _: counted.append(module))
    prompts = [transformer.prompt(embeds, LATENTS) for embeds in (EMBEDS, -EMBEDS)]
    for sigma, expected in zip(sigmas, alone, strict=True):
        made = predict_velocities(transformer, LATENTS, sigma, prompts, condition_mask(LATENTS))
        assert all(one.equal(other) for one, other in zip(made, expected, strict=True))
    assert {layer: counted.count(layer) for layer in layers} == dict.fromkeys(layers, times * len(prompts))


def test_pieces_in_bfloat16_are_as_near_as_two_kernels():
    """The spread is that between two ways to compute attention."""

    class AnotherAttention(Kernels):
        def attention(self, query, key, value):
            weights = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(-1)
            return (weights @ value).transpose(1, 2).flatten(2)

    stock, timestep = stock_transformer(blocks=8).to(torch.bfloat16), torch.tensor([0.7])
    whole = velocity(ours(stock), timestep)
    other = ours(stock)
    other.kernels = AnotherAttention()
    spread = (velocity(other, timestep) - whole).square().mean().sqrt().item()
    pieces = (velocity(ours(stock, Chunks(5, 7)), timestep) - whole).square().mean().sqrt().item()
    print(f"\npieces {pieces:.1e}, two kernels {spread:.1e} (rms)", end="")
    assert pieces <= spread


def with_large_residuals(transformer: CosmosTransformer3DModel) -> CosmosTransformer3DModel:
    """As a trained one: the residual stream grows to thousands, which bfloat16 keeps to 8 and float16 hardly holds."""
    with torch.no_grad():
        transformer.patch_embed.proj.weight.mul_(1000)
        for block in transformer.transformer_blocks:
            block.attn1.to_out[0].weight.mul_(300)
            block.ff.net[2].weight.mul_(3000)
    return transformer


def test_a_residual_stream_in_float32_is_nearer_to_float32_at_28_blocks():
    """Ours against diffusers'."""
    stock, timestep = with_large_residuals(stock_transformer(blocks=28)), torch.tensor([0.7])
    exact = stock_velocity(stock, timestep)
    residuals = []
    for block in stock.transformer_blocks:
        block.register_forward_hook(lambda module, inputs, output: residuals.append(output.abs().max().item()))
    stock_velocity(stock, timestep)
    errors = {}
    for dtype in (torch.bfloat16, torch.float16):
        smaller = stock.to(dtype)
        errors[dtype] = [
            ((made - exact).square().mean() / exact.square().mean()).sqrt().item()
            for made in (velocity(ours(smaller), timestep), stock_velocity(smaller, timestep))
        ]
        print(f"\n{dtype}: ours {errors[dtype][0]:.1e}, diffusers {errors[dtype][1]:.1e} of float32 (rms)", end="")
        stock = with_large_residuals(stock_transformer(blocks=28))
    print(f"; residuals up to {max(residuals):.0f}", end="")
    assert max(residuals) > 1000
    assert errors[torch.bfloat16][0] < errors[torch.bfloat16][1]
    assert errors[torch.float16][0] < errors[torch.bfloat16][0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("engine", ["plain", "ComfyUI"])
def test_the_time_the_modulations_and_the_last_layer_are_computed_in_float32_and_all_else_is_not(
    dtype, engine, comfy_kernels
):
    transformer = ours(stock_transformer().to(dtype))
    if engine == "ComfyUI":
        comfy_kernels(transformer)
    seen: dict[str, set] = {"fine": set(), "layers": set(), "residuals": set()}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            kind = "fine" if any(part in name for part in ("time_embed", "norm", "proj_out")) else "layers"
            module.register_forward_pre_hook(lambda _, inputs, kind=kind: seen[kind].add(inputs[0].dtype))
    for block in transformer.transformer_blocks:
        block.register_forward_hook(lambda module, inputs, output: seen["residuals"].add(output.dtype))
    velocity(transformer, torch.tensor([0.7]))
    assert seen == {"fine": {torch.float32}, "layers": {dtype}, "residuals": {torch.float32}}


@pytest.mark.parametrize("timestep", [0.995, 0.5, 0.009])
def test_a_pass_is_nearer_than_with_the_time_in_bfloat16_and_than_with_nvidias_residual_stream(timestep, monkeypatch):
    """With modulations that are not near 0, as those of a new network are. Figures are in docs/benchmarks.md."""
    stock, moment = stock_transformer(blocks=8), torch.tensor([timestep])
    for name, weight in stock.named_parameters():
        if name.endswith("linear_2.weight"):
            weight.mul_(10)
    stock = stock.to(torch.bfloat16).float()  # the same weights in all
    exact = stock_velocity(stock, moment)
    smaller = ours(stock).to(torch.bfloat16)

    def error() -> float:
        return ((velocity(smaller, moment) - exact).square().mean() / exact.square().mean()).sqrt().item()

    found = error()
    monkeypatch.setattr(arithmetic, "RESIDUAL_DTYPE", torch.bfloat16)
    nvidias = error()
    monkeypatch.undo()
    monkeypatch.setattr(arithmetic, "FINE_DTYPE", torch.bfloat16)
    before = error()
    print(f"\nours {found:.1e}, as NVIDIA's {nvidias:.1e}, without float32 {before:.1e} (rms)", end="")
    assert found < nvidias
    assert found < 0.85 * before


@pytest.fixture
def comfy_kernels(core):
    """Gives a transformer ComfyUI's layers and kernels."""
    from cosmos_predict25.nodes.host.kernels import ComfyKernels
    from cosmos_predict25.nodes.host.memory import CosmosPredict25Part

    def use(transformer: CosmosTransformer) -> None:
        CosmosPredict25Part(transformer)
        transformer.kernels = ComfyKernels()

    return use


def test_comfyuis_kernels_compute_the_same_bits_on_a_cpu(comfy_kernels):
    from cosmos_predict25.nodes.host.kernels import fused

    assert fused("adaln")
    assert fused("rms_rope_split_half1")
    transformer, timestep = ours(stock_transformer()), torch.tensor([0.7])
    expected = velocity(transformer, timestep)
    comfy_kernels(transformer)
    assert velocity(transformer, timestep).equal(expected)


def test_the_fused_norm_gets_values_of_one_type(comfy_kernels, monkeypatch):
    """Its CUDA version, which no CPU has, reads scale and shift as values of the type of what is normalised."""
    import comfy.quant_ops

    types, kernel = [], comfy.quant_ops.ck.adaln

    def watched(x, scale, shift, eps):
        types.append({x.dtype, scale.dtype, shift.dtype})
        return kernel(x, scale, shift, eps)

    transformer = ours(stock_transformer()).to(torch.bfloat16)
    comfy_kernels(transformer)
    monkeypatch.setattr(comfy.quant_ops.ck, "adaln", watched)
    velocity(transformer, torch.tensor([0.7]))
    assert types
    assert all(len(each) == 1 for each in types)


def test_without_comfyuis_kernel_library_our_own_are_used(comfy_kernels, monkeypatch):
    import comfy.quant_ops

    transformer, timestep = ours(stock_transformer()), torch.tensor([0.7])
    expected = velocity(transformer, timestep)
    monkeypatch.setattr(comfy.quant_ops, "ck", None)
    comfy_kernels(transformer)
    assert velocity(transformer, timestep).equal(expected)


def test_attention_is_the_one_that_comfyui_was_started_with(comfy_kernels, monkeypatch):
    from comfy.ldm.modules import attention

    calls = []
    chosen = attention.optimized_attention

    def another(*args, **options):
        calls.append(options)
        return chosen(*args, **options)

    transformer = ours(stock_transformer())
    comfy_kernels(transformer)
    monkeypatch.setattr(attention, "optimized_attention", another)
    velocity(transformer, torch.tensor([0.7]))
    assert len(calls) == 2 * len(transformer.transformer_blocks)
