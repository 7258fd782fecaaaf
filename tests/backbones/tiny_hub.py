"""Tiny models of random weights, saved as transformers and diffusers save theirs."""

import json

import diffusers
import torch
import transformers

TOKENS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 64,
    "patch_size": 16,
}
STAGES = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32]}
SWIN = {"image_size": 64, "embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 2}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 9,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
# Model type -> its configuration; every part that a test reads is small.
CONFIGS = {
    "vit": TOKENS,
    "deit": TOKENS,
    "beit": TOKENS,
    "data2vec-vision": {**TOKENS, "use_shared_relative_position_bias": True},
    "dinov2": {**TOKENS, "mlp_ratio": 2},
    "dinov2_with_registers": {**TOKENS, "mlp_ratio": 2},
    "dinov3_vit": {**TOKENS, "num_register_tokens": 3},
    "vit_mae": TOKENS,
    "vit_msn": TOKENS,
    "ijepa": TOKENS,
    "clip_vision_model": TOKENS,
    "siglip_vision_model": TOKENS,
    "aimv2_vision_model": TOKENS,
    "sam_vision_model": {**TOKENS, "output_channels": 24, "mlp_dim": 48, "window_size": 2, "global_attn_indexes": [1]},
    "convnext": STAGES,
    "convnextv2": STAGES,
    "dinov3_convnext": STAGES,
    "resnet": {**STAGES, "embedding_size": 8, "layer_type": "basic"},
    "regnet": {**STAGES, "embedding_size": 8, "groups_width": 8},
    "mobilenet_v2": {"depth_multiplier": 0.35},
    "efficientnet": {"width_coefficient": 0.5, "depth_coefficient": 0.5, "image_size": 64, "hidden_dim": 640},
    "swin": SWIN,
    "swinv2": SWIN,
    "hiera": {"image_size": [64, 64], "embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4]},
    "clip": {"vision_config": TOKENS, "text_config": TEXT, "projection_dim": 20},
    "siglip": {"vision_config": TOKENS, "text_config": TEXT},
}
SQUASH = {"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 64}, "resample": 2}
VAE = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "scaling_factor": 0.3,
}
UNET = {
    "block_out_channels": (16, 16, 32, 32),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "sample_size": 8,
}
PIPELINE_TEXT = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 7,
    "vocab_size": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BIN = "diffusion_pytorch_model.bin"


def build(kind, seed=3, model=None, **changes):
    """A tiny model whose every parameter is random, the zeros and ones of norms and tokens too."""
    config = transformers.AutoConfig.for_model(kind, **{**CONFIGS[kind], **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = (model or transformers.AutoModel.from_config)(config)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return net.eval()


def save(net, folder, processor=SQUASH):
    """Save a transformers model with the configuration of an image processor."""
    net.save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def save_tokenizer(folder):
    """Save a tokenizer of eight words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {w: i for i, w in enumerate(["[UNK]", "<s>", "</s>", "a", "photo", "of", "cat", "dog"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)


def build_pipeline():
    """VAE, UNet and text encoder, tiny, with every parameter random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        parts = (
            diffusers.AutoencoderKL(**VAE),
            diffusers.UNet2DConditionModel(**UNET),
            transformers.CLIPTextModel(transformers.CLIPTextConfig(**PIPELINE_TEXT)),
        )
        with torch.no_grad():
            for part in parts:
                for parameter in part.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
    return tuple(part.eval() for part in parts)


def save_pipeline(folder, parts, safe=True):
    """Save VAE, UNet and text encoder as a pipeline, in safetensors or in torch files."""
    for name, part in zip(("vae", "unet", "text_encoder"), parts, strict=True):
        part.save_pretrained(folder / name, safe_serialization=True)
        if not safe:
            file = next((folder / name).glob("*.safetensors"))
            torch.save(part.state_dict(), folder / name / {"text_encoder": "pytorch_model.bin"}.get(name, BIN))
            file.unlink()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    save_tokenizer(folder / "tokenizer")
