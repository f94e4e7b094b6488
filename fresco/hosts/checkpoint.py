"""Sizes of a checkpoint's networks, read from the shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from fresco.errors import HostError, WeightsError
from fresco.hosts.detection import (
    SD1,
    SD2,
    SDXL,
    TEXT_ENCODERS,
    UNET,
    VAE,
    count_transformers,
    describe,
    find_family,
    name_token_table,
)
from fresco.hosts.tensor_file import Shapes, TensorFile

_STAGES = {SD1: 4, SD2: 4, SDXL: 3}
"""Family -> stages of its UNet."""
_SIZES_OF_IMAGES = 6
"""Numbers that SDXL takes beside the pooled prompt: size, crop and size wanted of an image."""


@dataclass(frozen=True, slots=True)
class TextSizes:
    """Sizes of a text encoder."""

    prefix: str
    """Beginning of the names of its tensors."""
    width: int
    """Width of its tokens."""
    vocabulary: int
    """Number of tokens that it knows."""
    layers: int
    """Number of its layers."""
    inner: int
    """Width inside its layers."""
    length: int
    """Number of tokens of a prompt, start and end included."""
    pooled: int = 0
    """Width of the pooled vector of a prompt; 0: it has none."""

    @property
    def is_open_clip(self) -> bool:
        """Whether it has open_clip's names instead of those of transformers."""
        return self.prefix.endswith(".model.")


@dataclass(frozen=True, slots=True)
class Architecture:
    """A checkpoint of a kind that can be guided, with its sizes."""

    family: str
    """Stable Diffusion 1.x, Stable Diffusion 2.x or SDXL."""
    widths: tuple[int, ...]
    """Channels of the UNet's stages."""
    depths: tuple[int, ...]
    """Transformer blocks of each stage's attention; 0: it has none."""
    context: int
    """Width of the text conditioning."""
    texts: tuple[TextSizes, ...]
    """The text encoders, in the order of the conditioning's columns."""
    vae_widths: tuple[int, ...]
    """Channels of the VAE's stages."""
    vae_layers: int
    """Residual blocks of a stage of the VAE's encoder; a stage of the decoder has one more."""
    added: int = 0
    """Width of the added conditioning of SDXL."""

    @property
    def size_width(self) -> int:
        """Channels that SDXL embeds each of the numbers of an image's size in."""
        return (self.added - self.texts[-1].pooled) // _SIZES_OF_IMAGES


def measure_checkpoint(file: TensorFile, *, with_vae: bool = True) -> Architecture:
    """Read the sizes of a checkpoint; HostError if its kind cannot be guided.

    Args:
        with_vae: whether its VAE is needed; else the sizes of the VAE may be empty.
    """
    shapes = file.shapes
    kind = describe(shapes)
    if not with_vae and kind == "a UNet without its VAE":
        kind = find_family(shapes)
    if kind not in TEXT_ENCODERS:
        hint = " Give its VAE as sampling.vae." if kind == "a UNet without its VAE" else ""
        raise HostError(
            f"{file.path.name} is {kind}; a single file must be a whole checkpoint of {SD1}, "
            f"2.x or {SDXL}.{hint}"
        )

    def read(name: str, axis: int = 0) -> int:
        return require_size(file, UNET + name, axis)

    depths = tuple(count_transformers(shapes, f"input_blocks.{3 * stage + 1}")
                   for stage in range(_STAGES[kind])) if kind == SDXL else (1, 1, 1, 0)
    attended = next((stage for stage, depth in enumerate(depths) if depth), 0)
    has_vae = any(key.startswith(VAE) for key in shapes)
    vae_widths, vae_layers = measure_vae(file, VAE) if with_vae or has_vae else ((), 0)
    sizes = Architecture(
        family=kind,
        widths=tuple(read(f"input_blocks.{3 * stage + 1}.0.in_layers.2.weight")
                     for stage in range(_STAGES[kind])),
        depths=depths,
        context=read(
            f"input_blocks.{3 * attended + 1}.1.transformer_blocks.0.attn2.to_k.weight", 1
        ),
        texts=tuple(_measure_text(file, prefix, pools=kind == SDXL)
                    for prefix in TEXT_ENCODERS[kind]),
        vae_widths=vae_widths,
        vae_layers=vae_layers,
        added=read("label_emb.0.0.weight", 1) if kind == SDXL else 0,
    )
    if sizes.added and (sizes.size_width < 1 or (sizes.added - sizes.texts[-1].pooled)
                        % _SIZES_OF_IMAGES):
        raise HostError(
            f"{file.path.name} adds {sizes.added} channels to a prompt of {sizes.texts[-1].pooled},"
            f" unlike {SDXL}; use a plain checkpoint of it."
        )
    return sizes


def _measure_text(file: TensorFile, prefix: str, *, pools: bool) -> TextSizes:
    """Sizes of the text encoder whose tensors have this prefix.

    Args:
        pools: whether a prompt's vector is used, if the encoder is open_clip's
    """
    is_open = prefix.endswith(".model.")
    layers = f"{prefix}{'transformer.resblocks.' if is_open else 'encoder.layers.'}"
    inner = "mlp.c_fc.weight" if is_open else "mlp.fc1.weight"
    places = "positional_embedding" if is_open else "embeddings.position_embedding.weight"
    table = f"{prefix}{name_token_table(prefix)}"
    numbers = {key[len(layers):].partition(".")[0] for key in file.shapes if key.startswith(layers)}
    return TextSizes(
        prefix=prefix,
        width=require_size(file, table, 1),
        vocabulary=require_size(file, table, 0),
        layers=len(numbers),
        inner=require_size(file, f"{layers}0.{inner}", 0),
        length=require_size(file, f"{prefix}{places}", 0),
        pooled=require_size(file, f"{prefix}text_projection", 1) if is_open and pools else 0,
    )


def measure_vae(file: TensorFile, prefix: str) -> tuple[tuple[int, ...], int]:
    """Read the channels of a VAE's stages, and the residual blocks of a stage of its encoder."""
    shapes = file.shapes
    # The decoder's stages: an encoder's may be without residual blocks.
    stages = _count(shapes, f"{prefix}decoder.up.{{}}.block.0.conv2.weight")
    if not stages:
        raise make_missing_error(file, f"{prefix}decoder.up.0.block.0.conv2.weight")
    widths = tuple(require_size(file, f"{prefix}decoder.up.{stage}.block.0.conv2.weight", 0)
                   for stage in range(stages))
    return widths, _count(shapes, f"{prefix}decoder.up.0.block.{{}}.conv2.weight") - 1


def require_size(file: TensorFile, name: str, axis: int) -> int:
    """Read a size of a tensor that a file must have."""
    if name not in file.shapes:
        raise make_missing_error(file, name)
    if axis >= len(file.shapes[name]):
        raise WeightsError(
            f"{file.path.name} has {file.name_in_file(name)} of shape {list(file.shapes[name])}, "
            f"which needs {axis + 1} or more dimensions; the file is damaged or of another kind."
        )
    return file.shapes[name][axis]


def make_missing_error(file: TensorFile, name: str, more: int = 0) -> WeightsError:
    """Make the error for a tensor that a file must have."""
    others = f" and {more} more of its tensors" if more else ""
    return WeightsError(
        f"{file.path.name} lacks {name}{others}; it is incomplete. Fetch it again, or use another "
        "file."
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """Count how many of `pattern` with 0, 1, 2, ... there are."""
    number = 0
    while pattern.format(number) in shapes:
        number += 1
    return number
