"""The recipe of a training run: everything that decides what it learns, stored resolved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

import tomli_w

from edgeunip.thermal import Agc, Mode
from edgeunip.train.layouts import Modality
from edgeunip.train.settings import refuse, require_kinds

ConvName = Literal["edge-s", "edge-xs"]
SizeName = Literal["auto", "micro", "tiny", "small", "base", "large", ConvName]
HeadName = Literal["light", "uper", "linear"]
NOT_NEGATIVE = ("last_heads", "merge", "brightness", "warmup", "weight_decay", "clip", "balance", "devices", "threads")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run learns. Defaults train from scratch; gray levels are 0..255."""

    # model
    size: SizeName = "auto"  # auto = as init, tiny without
    head: HeadName = "light"  # linear: probes on the frozen backbone; edge-* have a light head of their own
    init: str = ""  # the pre-trained encoder it starts from, a name, file or run; empty = from scratch
    layers: str = ""  # the linear head reads, counted from 1: "4,6,8,12", or all: a probe each; empty = the reference's
    last_heads: int = 0  # heads of the last block; 0 = as init, without as UNIP distilled this size
    merge: int = 0  # patches are merged 2x2 behind this block, counted from 1; 0 = never
    drop_path: float = 0.1  # rate at the last block, rising from 0 at the first
    dropout: float = 0.1  # of whole channels before the classifier
    # picture
    modality: Modality = "thermal"  # depth: one channel, as thermal; rgb: three, no AGC
    height: int = 0  # of the model's input, pixels, a multiple of 16; 0 = as the data
    width: int = 0
    agc: Mode = "percentile"
    mean: float = 96.9255  # normalisation of the picture, of every channel alike (UNIP, SODA's statistics)
    std: float = 47.8976
    # augmentation
    crop_height: int = 0  # of a training crop, pixels, a multiple of 16; 0 = the model's input
    crop_width: int = 0
    scale_min: float = 0.5  # the picture is enlarged by a random factor of the model's input size
    scale_max: float = 2.0
    focus: float = 0.5  # share of the crops that are laid around a pixel of a class drawn at random; 0 = reference
    brightness: float = 32.0  # largest shift, gray levels
    contrast: float = 0.5  # largest relative change
    # optimisation
    steps: int = 4000
    batch: int = 8  # pictures a step over all devices
    lr: float = 1e-3
    warmup: int = 200  # steps
    layer_decay: float = 1.0  # learning-rate factor a block, from the top; 0.85 for pre-trained weights
    weight_decay: float = 0.05
    clip: float = 1.0  # largest gradient norm; 0 = off, as the reference
    balance: float = 0.3  # class weight = frequency^-balance; 0 = reference
    # run
    seed: int = 0
    checkpoint_every: int = 200  # steps
    evaluate_every: int = 1000  # steps; the end is always evaluated
    devices: int = 0  # 0 = every GPU, or one CPU process
    workers: int = -1  # loader processes a device; -1 = 4 on a GPU, none on a CPU
    threads: int = 0  # CPU threads a process; 0 = torch's choice
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"

    def __post_init__(self) -> None:
        require_kinds(self)
        for name in ("height", "width", "crop_height", "crop_width"):
            if getattr(self, name) % 16 or getattr(self, name) < 0:
                refuse(name, getattr(self, name), "Give a multiple of 16 pixels, or 0 for the default.")
        for name in ("steps", "batch", "checkpoint_every", "evaluate_every", "lr", "std", "scale_min"):
            if getattr(self, name) <= 0:
                refuse(name, getattr(self, name), "Give a positive number.")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                refuse(name, getattr(self, name), "It must not be negative.")
        for name in ("drop_path", "dropout", "focus", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                refuse(name, getattr(self, name), "Give a share between 0 and 1.")
        if not 0 <= self.seed < 1 << 32:
            refuse("seed", self.seed, "Give a whole number from 0 to 4294967295.")
        if self.workers < -1:
            refuse("workers", self.workers, "Give a number of processes, or -1 for the default.")
        if self.scale_max < self.scale_min:
            refuse("scale_max", self.scale_max, "It must not be below scale_min.")
        if not 0 < self.layer_decay <= 1:
            refuse("layer_decay", self.layer_decay, "Give a factor above 0 and up to 1.")
        if self.layers and self.head != "linear":
            refuse("layers", self.layers, "It is the linear head's; leave it out, or take head = linear.")
        if self.is_convolutional:
            self._require_convolutional()

    @property
    def is_convolutional(self) -> bool:
        """Whether the size is no ViT: no blocks, no heads, and nothing a pre-trained encoder would fit into."""
        return self.size in get_args(ConvName)

    def _require_convolutional(self) -> None:
        for name, default in (("init", ""), ("head", "light"), ("last_heads", 0), ("merge", 0)):
            if getattr(self, name) != default:
                refuse(name, getattr(self, name), f"The size {self.size} is convolutional: leave {name} out.")

    def agc_parameters(self) -> Agc:
        """Return the AGC the run's pictures are made with."""
        return Agc(mode=self.agc)

    def to_toml(self) -> str:
        """Return all values as TOML."""
        return tomli_w.dumps(asdict(self))
