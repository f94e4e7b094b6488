"""All options: default, range, help, and which front end offers each under what name.

The command line, docs/options.md, the run file, the script in img2img, the tab, the API and the
infotext derive from these dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

DRAFT = "draft"
"""The value of propagation.quality that makes quick, rough frames."""
RANDOM_SEED = -1
"""The seed that stands for a random one, as in the WebUI. Front ends draw it before a run."""
SMALLEST_SIDE = 64
"""Smallest width and height of a frame in pixels that a run accepts."""
_LAST_FRAME = 999_999_999
"""Highest number of a frame: a year of video has fewer."""

Value = bool | int | float | str | tuple[Any, ...] | dict[str, str]


@dataclass(frozen=True, slots=True)
class Option:
    """What front ends need to know about an option, besides its type and default."""

    help: str
    """One sentence that says what it does."""
    low: float | None = None
    """Smallest value allowed."""
    high: float | None = None
    """Largest value allowed."""
    choices: tuple[str, ...] = ()
    """Words allowed; empty means any."""
    letters: int = 20_000
    """Most letters of a text, also of each text of a list or mapping. No tokenizer takes more
    than a thousand words."""
    images: bool = True
    """Whether another value gives other images, and so belongs into cache keys."""
    by_host: bool = False
    """Whether the host's fingerprint covers it: cache keys then hold, for example, the digest of
    the model's weights instead of the model's name."""
    needs: Callable[[FrescoSettings], bool] | None = None
    """Returns, for all settings, whether the option has an effect; None: it always has one."""
    held: bool = False
    """Whether cache keys already hold what follows from the option, such as the weights of the
    model or the size of the frames, so that its own value is left out of them."""
    file: bool = False
    """Whether it may name a file or folder of this machine."""
    one_clip: bool = False
    """Whether its value fits one clip only, so that it cannot be saved as a user's default."""
    label: str = ""
    """Its label in the tab; empty: its name."""
    flag: str = ""
    """Its flag on the command line, without dashes; empty: its name."""
    alias: str = ""
    """A second flag, in commands where no other option uses it."""
    commands: tuple[str, ...] = ("translate",)
    """Commands of the command line that offer it."""
    img2img: bool = False
    """Whether the script in img2img offers it."""
    instead: str = ""
    """What a client does instead, if servers (tab and API) do not offer it; empty: they do."""


def _option(default: Any, help: str, **rest: Any) -> Any:
    return field(default=default, metadata={"option": Option(help, **rest)})


_RUNS = ("translate", "propagate")
"""Commands that write a result."""
_ALL = ("translate", "keyframes", "propagate")
"""Commands that read a clip."""
_SERVED = ("translate", "ui")
"""Commands that load a model."""
_keyframe = partial(_option, commands=("translate", "keyframes"), img2img=True)
_guidance = partial(_option, img2img=True)
_result = partial(_option, commands=_RUNS)


def _optimizes(settings: FrescoSettings) -> bool:
    return settings.guidance.spatial_optimization or settings.guidance.temporal_optimization


_OF_UNITS = "give ControlNet units instead"
_OF_SERVER = "it is a setting of the server"
_canny = partial(
    _option, low=0, high=255, instead=_OF_UNITS,
    needs=lambda settings: settings.sampling.control == "canny",
)


@dataclass(frozen=True, slots=True)
class KeyframeSettings:
    """Which frames become keyframes, and which are translated together."""

    min_interval: int = _keyframe(
        10, "Fewest frames between two automatic keyframes.", low=0, high=1000
    )
    max_interval: int = _keyframe(30, "Most frames between two keyframes.", low=1, high=1000)
    batch_size: int = _keyframe(
        8, "Keyframes translated together, the two anchors included.", low=3, high=64
    )
    keys: str = _keyframe(
        "",
        "Keyframes by hand, such as 0,11,23, or a file of them; empty: automatic.",
        letters=200_000,
        one_clip=True,
        label="Keyframes by hand",
    )
    detect_shots: bool = _keyframe(
        True,
        "Find scene cuts; frames before and after a cut do not affect each other.",
        commands=_ALL,
    )
    shot_threshold: float = _keyframe(
        27.0,
        "Change between two frames that counts as a cut; higher values find fewer cuts.",
        low=1.0,
        high=255.0,
        commands=_ALL,
    )
    shot_min_length: int = _keyframe(5, "Fewest frames of a shot.", low=1, high=1000, commands=_ALL)


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """How motion between frames is estimated."""

    estimator: str = _result(
        "auto",
        "Optical flow: gmflow (best occlusion masks, weights of 19 MB), dis (no download), raft "
        "(needs torchvision), auto (gmflow if its weights are there or can be downloaded, else "
        "dis), files (exact motion that another program wrote, for every frame of the clip).",
        choices=("auto", "gmflow", "dis", "raft", "files"),
        img2img=True,
        label="Optical flow",
        flag="flow",
    )
    path: str = _result(
        "",
        "Folder of exact motion, for files: .npz, .flo, or .exr with Blender's Vector pass; "
        "forward and backward motion of every frame.",
        file=True,
        one_clip=True,
        label="Folder of motion",
        flag="flow-path",
        needs=lambda settings: settings.flow.estimator == "files",
    )
    weights_dir: str = _result(
        "",
        "Folder of weights; empty: $FRESCO_WEIGHTS, else ~/.cache/fresco.",
        images=False,
        file=True,
        instead="the server has a folder of its own",
        commands=(*_RUNS, "ui"),
    )
    offline: bool = _result(
        False, "Never use the network.", images=False, instead=_OF_SERVER, commands=(*_RUNS, "ui")
    )


@dataclass(frozen=True, slots=True)
class GuidanceSettings:
    """The parts of FRESCO; each can be switched on and off by itself."""

    spatial_attention: bool = _guidance(
        True, "Spatial-guided attention: queries are averaged over what looks alike in the source."
    )
    cross_frame_attention: bool = _guidance(
        True, "Cross-frame attention: all frames attend to the regions that are new in the batch."
    )
    temporal_attention: bool = _guidance(
        True, "Temporal-guided attention: each token attends to the tokens along its motion path."
    )
    spatial_optimization: bool = _guidance(
        True, "Optimise features towards the source's spatial correspondence."
    )
    temporal_optimization: bool = _guidance(
        True, "Optimise features so that they agree along the optical flow."
    )
    background_smoothing: bool = _guidance(
        False, "Smooth the background along the flow (features and late denoised estimates)."
    )
    consensus: bool = _guidance(
        False,
        "Make denoised estimates agree along the flow, and with the keyframes of the previous "
        "batch, which stay as they are: fewer jumps from batch to batch. Costs two more decodings "
        "and encodings in each batch.",
    )
    saliency: str = _guidance(
        "motion",
        "Subject mask of background smoothing: motion (no weights) or u2netp (4.6 MB).",
        choices=("motion", "u2netp"),
        label="Subject mask",
        needs=lambda settings: settings.guidance.background_smoothing,
    )
    optimization_iterations: int = _guidance(
        20,
        "Iterations of Adam in each optimised call of the UNet.",
        low=1,
        high=200,
        needs=_optimizes,
    )
    optimization_rate: float = _guidance(
        0.2, "Learning rate of Adam.", low=0.001, high=2.0, needs=_optimizes
    )
    spatial_weight: float = _guidance(
        100.0,
        "Weight of the spatial loss against the temporal one.",
        low=0.0,
        high=10000.0,
        needs=lambda settings: settings.guidance.spatial_optimization,
    )
    optimization_end: float = _guidance(
        0.75,
        "Share of the noise schedule, from its noisy end, in which features are optimised.",
        low=0.0,
        high=1.0,
        needs=_optimizes,
    )
    temporal_attention_end: float = _guidance(
        0.65,
        "Share of the noise schedule, from its noisy end, with temporal-guided attention.",
        low=0.0,
        high=1.0,
        needs=lambda settings: settings.guidance.temporal_attention,
    )
    plain_statistics: bool = _guidance(
        False,
        "After optimisation restore the plain mean and variance of features, instead of "
        "variance + 1 as published.",
        needs=_optimizes,
    )
    freeu_b1: float = _guidance(
        1.0,
        "FreeU backbone factor, decoder stage 0; 1 is off.",
        low=0.0,
        high=3.0,
        label="FreeU b1",
    )
    freeu_b2: float = _guidance(
        1.0,
        "FreeU backbone factor, decoder stage 1; 1 is off.",
        low=0.0,
        high=3.0,
        label="FreeU b2",
    )
    freeu_s1: float = _guidance(
        1.0, "FreeU skip factor, decoder stage 0; 1 is off.", low=0.0, high=3.0, label="FreeU s1"
    )
    freeu_s2: float = _guidance(
        1.0, "FreeU skip factor, decoder stage 1; 1 is off.", low=0.0, high=3.0, label="FreeU s2"
    )


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """The diffusion model and its sampling. A WebUI uses its own model and samplers instead."""

    model: str = _option(
        "",
        "Checkpoint: a .safetensors or .ckpt file, a diffusers folder, or a hub name.",
        file=True,
        by_host=True,
        held=True,
        instead="name the checkpoint as host.model, see GET /fresco/models",
    )
    vae: str = _option(
        "",
        "Another VAE: a file, a folder, or a hub name.",
        file=True,
        by_host=True,
        held=True,
        instead="choose the VAE in the server's settings",
        commands=_SERVED,
    )
    prediction: str = _option(
        "auto",
        "What the model predicts: epsilon, v, or v-ztsnr (v with zero terminal SNR); auto: as its "
        "files say.",
        choices=("auto", "epsilon", "v", "v-ztsnr"),
        by_host=True,
        held=True,
        instead="the server finds it out as for its own images",
        commands=_SERVED,
    )
    lora: tuple[str, ...] = _option(
        (),
        "LoRA files, each FILE or FILE:WEIGHT.",
        by_host=True,
        instead="write it into the prompt, such as <lora:name:0.8>",
        commands=_SERVED,
    )
    lora_dir: str = _option(
        "",
        "Folder of the LoRA files that prompts name, as in <lora:NAME:0.8>.",
        images=False,
        file=True,
        by_host=True,
        instead="the server has folders of its own",
        commands=_SERVED,
    )
    embeddings_dir: str = _option(
        "",
        "Folder of textual inversions; prompts use them by the names of their files.",
        images=False,
        file=True,
        by_host=True,
        instead="the server has folders of its own",
        commands=_SERVED,
    )
    prompt: str = _option("", "What the result should show.", by_host=True, label="Prompt")
    added_prompt: str = _option(
        "",
        "Text added to every prompt after a comma.",
        by_host=True,
        label="Added to every prompt",
    )
    negative_prompt: str = _option(
        "", "What the result should not show.", by_host=True, label="Negative prompt"
    )
    key_prompts: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "option": Option(
                "Text added to the prompts of single keyframes, by frame number.",
                by_host=True,
                one_clip=True,
                label="Words for single keyframes",
            )
        },
    )
    ranges: tuple[str, ...] = _option(
        (),
        "Ranges of frames with a prompt, negative prompt, strength or seed of their own, each such "
        "as 48-95 strength=0.6 seed=7 prompt=a castle in snow. Each is translated by itself, so "
        "that a change of one leaves the others as they are.",
        by_host=True,
        one_clip=True,
        needs=lambda settings: bool(settings.sampling.ranges),
        label="Ranges of frames",
        flag="range",
    )
    scheduler: str = _option(
        "ddpm",
        "Scheduler of diffusers, such as ddpm, euler-a, dpm++-2m, and lcm or tcd for models of few "
        "steps; dpm++-sde needs torchsde.",
        instead="name host.sampler and host.scheduler, see GET /fresco/models",
    )
    timesteps: str = _option(
        "auto",
        "How the steps are spaced on the noise schedule: trailing begins at its noisiest timestep, "
        "which models of few steps need; auto: the scheduler's default.",
        choices=("auto", "leading", "linspace", "trailing"),
        needs=lambda settings: settings.sampling.timesteps != "auto",
        instead="name host.scheduler, see GET /fresco/models",
    )
    steps: int = _option(
        20,
        "Steps of the full noise schedule; a strength below 1 leaves out the first of them.",
        low=1,
        high=1000,
        label="Sampling steps",
    )
    strength: float = _option(
        0.75,
        "How far the result may differ from the source: 0 changes nothing, 1 starts from noise.",
        low=0.0,
        high=1.0,
        label="Denoising strength",
    )
    guidance_scale: float = _option(
        7.5,
        "Scale of classifier-free guidance; 0 to 2 for models of few steps. At 1 or less the "
        "negative prompt is not used.",
        low=0.0,
        high=50.0,
        label="CFG scale",
    )
    seed: int = _option(
        0, "Seed of all noise; -1: a random seed.", low=RANDOM_SEED, high=2**63 - 1, one_clip=True
    )
    resolution: int = _option(
        512,
        "Short side of the frames that the model sees; width and height are rounded to multiples "
        "of 64.",
        low=64,
        high=4096,
        by_host=True,
        held=True,
    )
    control: str = _option(
        "none",
        "Preprocessor of ControlNet.",
        choices=("none", "canny", "hed", "depth"),
        instead=_OF_UNITS,
    )
    control_model: str = _option(
        "",
        "ControlNet: a file, a diffusers folder, or a hub name.",
        file=True,
        by_host=True,
        held=True,
        instead=_OF_UNITS,
    )
    control_weight: float = _option(
        0.7,
        "Strength of ControlNet.",
        low=0.0,
        high=2.0,
        instead=_OF_UNITS,
        needs=lambda settings: settings.sampling.control != "none",
    )
    canny_low: int = _canny(50, "Lower threshold of canny.")
    canny_high: int = _canny(100, "Upper threshold of canny.")
    control_units: tuple[str, ...] = _option(
        (),
        "Further ControlNets, each as words, the preprocessor first: \"depth model=FILE weight=0.5 "
        "start=0 end=0.6\", or with hints made elsewhere: \"hints=FOLDER model=FILE\".",
        file=True,
        by_host=True,
        held=True,
        flag="control-unit",
        instead=_OF_UNITS,
    )
    device: str = _option(
        "auto",
        "Device: auto, cpu, cuda, cuda:1, mps.",
        by_host=True,
        held=True,
        instead=_OF_SERVER,
        commands=_SERVED,
    )
    dtype: str = _option(
        "auto",
        "Number format of the model; auto: float16 on CUDA, float32 elsewhere.",
        choices=("auto", "float32", "float16", "bfloat16"),
        instead=_OF_SERVER,
        commands=_SERVED,
    )


@dataclass(frozen=True, slots=True)
class PropagationSettings:
    """How the frames between keyframes are made from them (propagation)."""

    enabled: bool = _result(
        True,
        "Propagate the keyframes to all frames; otherwise only keyframes are made.",
        flag="propagate",
        commands=("translate",),
        instead="choose the goal keyframes instead",
    )
    method: str = _result(
        "patch",
        "patch: the bundled program paints frames from patches of the keyframes; if it cannot run, "
        "flow is used, and the run says so. flow: keyframes are warped along the optical flow.",
        choices=("patch", "flow"),
        label="Propagation method",
        flag="propagation",
    )
    quality: str = _result(
        "balanced",
        "balanced; best: the patch search goes on for as long as anything changes; draft: quick, "
        "rough frames to judge the keyframes by, with either method.",
        choices=("balanced", "best", DRAFT),
        label="Propagation quality",
        flag="propagation-quality",
    )
    resolution: int = _result(
        0,
        "Short side of the frames between keyframes; keyframes are enlarged to it. 0: as the "
        "keyframes.",
        low=0,
        high=4320,
        label="Propagation resolution",
        flag="propagation-resolution",
        alias="resolution",
        held=True,
    )
    even_colours: bool = _result(
        False,
        "Give all keyframes of a shot the same exposure and colour before propagation; changes in "
        "the source itself are kept. Keyframes with different prompts are not compared.",
        label="Even out colours of keyframes",
        held=True,
    )
    join_keyframes: bool = _result(
        False,
        "Bring broad shapes and colours of each keyframe nearer to those of its neighbours, most "
        "between two batches, before propagation: fewer jumps and less flicker. Fine detail stays. "
        "Takes no time of the model. Retouched and external keyframes change too, but a large "
        "change is kept for the most part. Keyframes with different prompts are not joined.",
        label="Join keyframes",
        held=True,
    )
    guides: tuple[str, ...] = _result(
        (),
        "Further guides of the patch search, such as normals, object ids or texture coordinates: "
        "folders with an image for every frame, each FOLDER or FOLDER:WEIGHT (the built-in guides "
        "have weights 6 for colours and 0.5 for edges).",
        file=True,
        one_clip=True,
        held=True,
        label="Further guides",
        flag="guide",
        needs=lambda settings: settings.propagation.method == "patch",
    )
    workers: int = _result(
        0,
        "Number of worker processes; 0: as many as cores.",
        low=0,
        high=256,
        images=False,
        label="Worker processes",
        commands=(*_RUNS, "ui"),
    )
    cluster: str = _result(
        "",
        "Scheduler of a dask.distributed cluster that sees the same folders, such as "
        "tcp://host:8786; empty: this machine.",
        images=False,
        instead=_OF_SERVER,
        commands=(*_RUNS, "ui"),
    )


@dataclass(frozen=True, slots=True)
class BlendSettings:
    """How the two versions of a frame, from the keyframe before and after it, become one."""

    histogram: bool = _result(
        True,
        "Histogram-preserving blend of the two versions.",
        label="Histogram blend",
        flag="histogram-blend",
    )
    gradient: bool = _result(
        True,
        "Gradient (screened Poisson) blend that hides seams.",
        label="Gradient blend",
        flag="gradient-blend",
    )


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """Which part of the frames is translated; the rest stays as in the source, pixel by pixel."""

    source: str = _result(
        "none",
        "Where the mask comes from: none (everything is translated), drawing (drawn on one frame "
        "or more, and tracked to the others along the motion), files (an image for every frame, or "
        "a video), motion (what moves against the camera), u2netp (the subject, by a network of "
        "4.6 MB).",
        choices=("none", "drawing", "files", "motion", "u2netp"),
        img2img=True,
        label="Mask",
        flag="mask",
    )
    path: str = _result(
        "",
        "White is translated. For drawing: an image, or a folder of images whose names hold frame "
        "numbers, such as 000012.png. For files: a folder or a video with a mask for every frame, "
        "or one image for all; on a server also the id of an uploaded video.",
        file=True,
        one_clip=True,
        label="Mask's file or folder",
        flag="mask-path",
        needs=lambda settings: settings.mask.source in ("drawing", "files"),
    )
    invert: bool = _result(
        False,
        "Translate the black part of the mask, or the background, instead.",
        label="Translate outside the mask",
        flag="mask-invert",
    )
    feather: int = _result(
        6,
        "Width of the soft edge in pixels of the result. It lies inside the mask, so that "
        "everything outside stays as in the source.",
        low=0,
        high=500,
        label="Soft edge of the mask",
        flag="mask-feather",
    )


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """Which frames are used, and how the result is written."""

    first_frame: int = _result(
        0, "First frame of the source to use.", low=0, high=_LAST_FRAME, one_clip=True,
        commands=_ALL, img2img=True,
    )
    last_frame: int = _result(
        -1,
        "Last frame of the source to use; -1: the last one.",
        low=-1,
        high=_LAST_FRAME,
        one_clip=True,
        commands=_ALL,
        img2img=True,
    )
    codec: str = _result(
        "auto",
        "Codec of the result; auto: the usual one for the ending of its name, H.264 for .mp4, .mov "
        "and .mkv. png and png-16bit: a folder of images; 16 bits keep the finer values that "
        "scaling to the source's size gives.",
        choices=("auto", "h264", "h265", "h265-10bit", "av1", "vp9", "prores-422-hq",
                 "prores-4444", "ffv1", "gif", "webp", "png", "png-16bit"),
        label="Video codec",
    )
    name: str = _result(
        "",
        "Pattern for the name of the result, of {clip}, {prompt}, {seed} and {number}; empty: "
        "{clip}_fresco, and {clip}-{prompt}-{seed} for downloads. A name given on the command line "
        "is used instead.",
        letters=200,
        images=False,
        label="Name of the result",
    )
    background: str = _result(
        "source",
        "What is seen outside the mask and through transparent parts of the source: source (its "
        "pixels, laid over black), or transparent (frames with alpha, by vp9, prores-4444, ffv1, "
        "webp, png and png-16bit).",
        choices=("source", "transparent"),
        images=False,
        label="Background",
    )
    crf: int = _result(
        17,
        "Quality on the scale of H.264; lower values give better and larger files. Not for ProRes, "
        "FFV1 and GIF.",
        low=0,
        high=51,
        label="Video quality (CRF)",
    )
    sound: bool = _result(True, "Copy the source's sound.", label="Keep the sound")
    source_size: bool = _result(
        True,
        "Scale the result to the source's size; otherwise it has the size of the frames that were "
        "worked on.",
        label="Write at the source's size",
    )
    compare: bool = _result(
        False,
        "Also translate each frame alone, and write source, frame by frame and FRESCO side by "
        "side. Measures then cover frame by frame and the other method of propagation too.",
        label="Compare with frame by frame",
        commands=("translate",),
    )
    compare_frames: int = _result(
        0,
        "How many frames are compared and measured, from the first; 0: all. Each one costs a "
        "translation of its own.",
        low=0,
        high=_LAST_FRAME,
        label="Frames to compare (0: all)",
        commands=("translate",),
    )
    measures: bool = _result(
        True,
        "Measure the result and write the measures beside it.",
        label="Measure the result",
        commands=("translate",),
    )


@dataclass(frozen=True, slots=True)
class FrescoSettings:
    """All options of a run."""

    keyframes: KeyframeSettings = field(default_factory=KeyframeSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    guidance: GuidanceSettings = field(default_factory=GuidanceSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    propagation: PropagationSettings = field(default_factory=PropagationSettings)
    blend: BlendSettings = field(default_factory=BlendSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    output: OutputSettings = field(default_factory=OutputSettings)


PRESETS: Mapping[str, Mapping[str, bool]] = {
    "paper": {"consensus": False},
    "steady": {"consensus": True},
    "attention": {
        "spatial_optimization": False, "temporal_optimization": False, "consensus": False,
    },
    "off": {
        "spatial_attention": False,
        "cross_frame_attention": False,
        "temporal_attention": False,
        "spatial_optimization": False,
        "temporal_optimization": False,
        "background_smoothing": False,
        "consensus": False,
    },
}
"""Named choices of guidance, over what is on by default: the published method, the same with
estimates that agree from batch to batch, the fast one, and no guidance."""
JOINING_PRESETS = frozenset({"steady"})
"""Presets that also join keyframes; the others do not."""
FORMER_PRESETS: Mapping[str, str] = {"full": "paper"}
"""Names of earlier versions, which files and programs may still use."""
