"""The encoder of a Stable Diffusion model as a backbone: VAE encoder, then the UNet down to its middle."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from bob.backbones import hub
from bob.backbones.base import Backbone, LayerOutput
from bob.backbones.preprocess import Preprocess
from bob.cards import BackboneCard, Weights
from bob.errors import UserError, did_you_mean, first_line
from bob.extras import import_extra

# Part -> the files of it that a diffusers pipeline has, the safe ones first.
_MODELS = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}
_PICKLED = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "pytorch_model"}
_CONFIGS = ("model_index.json", *(f"{part}/config.json" for part in _MODELS), "tokenizer/*")
_SAFE = tuple(f"{part}/{file}.safetensors" for part, file in _MODELS.items())

# Architecture -> what its configurations say beyond diffusers' defaults; `context` is (tokens, width) of the text.
_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "stable_diffusion_v1": {
        "vae": {
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "latent_channels": 4,
            "sample_size": 512,
        },
        "unet": {
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
            "sample_size": 64,
        },
        "context": (77, 768),
    }
}
_OPTIONS = ("architecture", "timestep", "prompt")
# Conditions of other UNets, which this encoder does not give.
_FOREIGN = ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")


class DiffusionEncoder(nn.Module):
    """Images in [-1, 1] to the activations of a diffusion UNet's contracting half; no noise is added.

    Args:
        vae: An `AutoencoderKL`; only its encoder is kept.
        unet: A `UNet2DConditionModel`; its expanding half is dropped.
        context: The text embedding (1, tokens, width) that every image is given.
        timestep: The noise level that the UNet is told.
    """

    context: torch.Tensor
    timestep: torch.Tensor

    def __init__(self, vae: Any, unet: Any, context: torch.Tensor, timestep: int) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        self.conv_in, self.time_proj, self.time_embedding = unet.conv_in, unet.time_proj, unet.time_embedding
        self.down_blocks, self.mid_block = unet.down_blocks, unet.mid_block
        # Buffers, so that the hash of the weights covers what else decides the features.
        self.register_buffer("context", context)
        self.register_buffer("timestep", torch.tensor([timestep]))
        self._shift = getattr(vae.config, "shift_factor", None) or 0.0
        self._scale = vae.config.scaling_factor

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of the down blocks, each before its downsampling, and of the mid block."""
        sample = self.conv_in(self._latents(images))
        step = self.time_proj(self.timestep.expand(len(images))).to(sample.dtype)
        time, context = self.time_embedding(step), self.context.expand(len(images), -1, -1)
        maps = []
        for block in self.down_blocks:
            sample, states = _run(block, sample, time, context)
            maps.append(states[-2] if block.downsamplers else states[-1])
        return [*maps, _run(self.mid_block, sample, time, context)]

    def _latents(self, images: torch.Tensor) -> torch.Tensor:
        """The mode of the posterior, not a sample of it."""
        moments = self.encoder(images)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return (moments.chunk(2, dim=1)[0] - self._shift) * self._scale


class DiffusionBackbone(Backbone):
    """A `DiffusionEncoder`; `embed` is the spatial mean of the mid block."""

    model: Any  # nn.Module promises none of its parts

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """See `Backbone.embed`."""
        return self.model(images)[-1].mean(dim=(2, 3))

    def layers(self, images: torch.Tensor, indices: Sequence[int] | None = None) -> list[LayerOutput]:
        """See `Backbone.layers`: the down blocks, each before its downsampling, then the mid block."""
        blocks = self.read(images)[1]
        if indices is None:
            return blocks
        if any(not -len(blocks) <= index < len(blocks) for index in indices):
            raise self._lacks(f"blocks {list(indices)}", f"It has {len(blocks)}, counted from 0.")
        return [blocks[index] for index in indices]

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, list[LayerOutput]]:
        """See `Backbone.read`; the feature is the last block's."""
        blocks = [LayerOutput(pooled=map_.mean(dim=(2, 3)), map=map_) for map_ in self.model(images)]
        return blocks[-1].pooled, blocks

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """See `Backbone.feature_maps`: the last map of each stride, so the mid block's for the coarsest."""
        return list(dict(zip(self._block_strides(), self.model(images), strict=True)).values())

    @property
    def strides(self) -> list[int]:
        """See `Backbone.strides`."""
        return list(dict.fromkeys(self._block_strides()))

    def _block_strides(self) -> list[int]:
        """Stride of each of the maps: the VAE's, doubled by each downsampling."""
        encoder = self.model
        stride = 2 ** sum(block.downsamplers is not None for block in encoder.encoder.down_blocks)
        strides = []
        for block in encoder.down_blocks:
            strides.append(stride)
            stride *= 2 if block.downsamplers else 1
        return [*strides, stride]


def load_diffusers(card: BackboneCard) -> Backbone:
    """Load the encoder of a text-to-image pipeline in diffusers' layout, or build it at random initialisation.

    `weights.options` may hold `timestep` (default 0), `prompt` (default empty; embedded once, then the text encoder is
    dropped) and `architecture`, with which random initialisation needs no file. At random initialisation the text
    embedding is one fixed draw from the standard normal distribution, because there is no text encoder either.

    Raises:
        UserError: If a library or file is missing, a tensor is missing or of another shape, an option is unknown or
            disagrees with the checkpoint, or the pipeline's UNet needs more than an image and a text.
    """
    library = import_extra("diffusers", "hf")
    _check(card)
    weights = card.weights
    with hub.quiet(library, import_extra("transformers", "hf")):
        folder = _folder(card)
        configs = _configs(weights, folder)
        if weights.pretrained and folder is not None:
            vae, unet = (_pretrained(library, weights, folder, part) for part in ("vae", "unet"))
            context = _embed_prompt(weights, folder)
        else:
            vae = library.AutoencoderKL.from_config(configs["vae"])
            unet = library.UNet2DConditionModel.from_config(configs["unet"])
            context = torch.randn(1, *configs["context"])
    model = DiffusionEncoder(vae, unet, context, int(weights.options.get("timestep", 0))).float()
    edge = unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)
    native = Preprocess((edge, edge), 1.0, "center", "bicubic", (0.5,) * 3, (0.5,) * 3)
    code = {"diffusers": library.__version__, "revision": (hub.commit_of(folder) if folder else None) or ""}
    return DiffusionBackbone(card, model, native.overridden(card.preprocess), code)


def weights_status(weights: Weights) -> str:
    """Say in words whether the weights of a pipeline are in the cache."""
    return hub.status(weights, ["unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin"])


def _check(card: BackboneCard) -> None:
    """Refuse what this source does not have."""
    for option in card.weights.options:
        if option not in _OPTIONS:
            raise UserError(f"A diffusion encoder has no option '{option}'.", did_you_mean(option, _OPTIONS))
    timestep = card.weights.options.get("timestep", 0)
    if isinstance(timestep, bool) or not isinstance(timestep, int) or timestep < 0:
        raise UserError(f"Expected options.timestep to be 0 or more, but got {timestep!r}.", "Correct it on the card.")
    if card.feature.layer != "mid_block" or card.feature.pooling not in ("default", "avg"):
        found = f"'{card.feature.layer}' pooled by '{card.feature.pooling}'"
        raise UserError(
            f"Backbone '{card.name}': the feature of a diffusion encoder is the mean of its mid block, not {found}.",
            'Set feature.layer = "mid_block" and leave feature.pooling at "default".',
        )


def _folder(card: BackboneCard) -> Path | None:
    """The folder of the pipeline's files; None if the card alone says what to build."""
    weights = card.weights
    if not weights.pretrained:
        return None if "architecture" in weights.options else hub.fetch(weights, _CONFIGS)
    folder = hub.fetch(weights, [*_CONFIGS, *_SAFE])
    lacking = [part for part, file in zip(_MODELS, _SAFE, strict=True) if not (folder / file).is_file()]
    pickled = [f"{part}/{_PICKLED[part]}.bin" for part in lacking]
    if pickled:
        folder = hub.fetch(weights, [*_CONFIGS, *_SAFE, *pickled])
    for part, file in zip(lacking, pickled, strict=True):
        if not (folder / file).is_file():
            raise hub.lacks(weights, folder, f"{part}/{_MODELS[part]}.safetensors")
    return folder


def _configs(weights: Weights, folder: Path | None) -> dict[str, Any]:
    """Configurations of `vae` and `unet`, and (tokens, width) of the text as `context`."""
    name = str(weights.options.get("architecture", ""))
    if name and name not in _ARCHITECTURES:
        raise UserError(f"bob knows no diffusion architecture '{name}'.", did_you_mean(name, _ARCHITECTURES))
    if folder is None:
        return _ARCHITECTURES[name]
    found: dict[str, Any] = {part: _read_config(weights, folder, part) for part in _MODELS}
    for part in ("vae", "unet"):
        _require_declared(weights, part, found[part], _ARCHITECTURES[name][part] if name else {})
    for field in _FOREIGN:
        if found["unet"].get(field) is not None:
            raise UserError(
                f"The UNet of '{weights.model}' needs more than an image and a text ({field}).",
                "Use a Stable Diffusion 1 or 2 pipeline.",
            )
    text = found["text_encoder"]
    return {**found, "context": (text.get("max_position_embeddings", 77), found["unet"]["cross_attention_dim"])}


def _read_config(weights: Weights, folder: Path, part: str) -> dict[str, Any]:
    library = import_extra("diffusers", "hf")
    classes = {"vae": library.AutoencoderKL, "unet": library.UNet2DConditionModel}
    if not (folder / part / "config.json").is_file():
        raise hub.lacks(weights, folder, f"{part}/config.json")
    try:
        if part == "text_encoder":
            return import_extra("transformers", "hf").CLIPTextConfig.from_pretrained(str(folder / part)).to_dict()
        # Built without memory: only so do diffusers' own defaults show.
        with torch.device("meta"):
            kind = classes[part]
            return dict(kind.from_config(kind.load_config(str(folder / part))).config)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"Cannot read {part}/config.json of '{weights.model}' ({first_line(error)}).", "Use an intact pipeline."
        ) from error


def _require_declared(weights: Weights, part: str, found: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    for field, value in declared.items():
        there = found.get(field)
        there = tuple(there) if isinstance(there, list) else there
        if there != value:
            raise UserError(
                f"'{weights.model}' has {field} = {there!r} in its {part}, but the architecture "
                f"'{weights.options['architecture']}' on its card has {value!r}.",
                "Correct options.architecture or weights.model on the card.",
            )


def _pretrained(library: Any, weights: Weights, folder: Path, part: str) -> Any:
    """Load one part, refusing missing tensors and those of another shape."""
    kind = {"vae": library.AutoencoderKL, "unet": library.UNet2DConditionModel}[part]
    return _loaded(
        weights, part, kind, str(folder / part), torch_dtype=torch.float32, low_cpu_mem_usage=False,
        use_safetensors=(folder / part / f"{_MODELS[part]}.safetensors").is_file(),
    )  # fmt: skip


def _embed_prompt(weights: Weights, folder: Path) -> torch.Tensor:
    """Text embedding (1, tokens, width) of the card's prompt, padded to the full length as in training."""
    library = import_extra("transformers", "hf")
    if not any((folder / "tokenizer" / file).is_file() for file in ("vocab.json", "tokenizer.json")):
        raise hub.lacks(weights, folder, "tokenizer/vocab.json")
    tokenizer = library.AutoTokenizer.from_pretrained(str(folder / "tokenizer"), trust_remote_code=False)
    encoder = _loaded(
        weights, "text_encoder", library.CLIPTextModel, str(folder / "text_encoder"), dtype=torch.float32
    ).eval()
    length = encoder.config.max_position_embeddings
    tokens = tokenizer(
        [str(weights.options.get("prompt", ""))],
        padding="max_length", truncation=True, max_length=length, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        return encoder(input_ids=tokens["input_ids"]).last_hidden_state


def _loaded(weights: Weights, part: str, kind: Any, path: str, **arguments: Any) -> Any:
    try:
        model, report = kind.from_pretrained(path, output_loading_info=True, **arguments)
    except (OSError, ValueError, RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"The {part} of '{weights.model}' cannot be read ({first_line(error)}).",
            "Its files must be whole and hold tensors alone.",
        ) from error
    for key in sorted(report["missing_keys"]):
        raise UserError(f"The {part} of '{weights.model}' lacks '{key}'.", "Use a whole checkpoint.")
    return model


def _run(block: Any, sample: torch.Tensor, time: torch.Tensor, context: torch.Tensor) -> Any:
    if getattr(block, "has_cross_attention", False):
        return block(sample, time, encoder_hidden_states=context)
    return block(sample, time)
