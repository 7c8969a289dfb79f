"""The recipes of pre-training: UNIP's published values are the defaults; gray levels are 0..255."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import tomli_w

from edgeunip.train.settings import refuse, require_kinds

_PATCH = 16  # pixels; train.vit has it too, and needs torch


@dataclass(frozen=True)
class Pretraining:
    """What every pre-training decides."""

    size: Literal["tiny", "small", "base", "large"] = "small"
    # data
    crop: int = 224  # side of a training crop, pixels, a multiple of 16
    scale_min: float = 0.2  # share of a picture's area that a crop covers
    scale_max: float = 1.0
    mean: float = 96.9255  # 0.3801 of 255, UNIP's statistics of infrared pictures
    std: float = 47.7105  # 0.1871 of 255
    holdout: int = 256  # pictures never trained on, which the loss is measured on; at most a tenth of all
    # optimisation
    epochs: float = 100.0
    steps: int = 0  # 0 = as many as the epochs have
    batch: int = 4096  # pictures a step, over all devices and micro-batches
    micro_batch: int = 0  # pictures a device computes at once, at most; 0 = 256 on a GPU, 16 on a CPU
    base_lr: float = 1.5e-4  # for a batch of 256; scales with the batch
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    beta2: float = 0.95
    clip: float = 0.0  # largest gradient norm; 0 = off
    ema: float = 0.0  # decay of an average of the encoder, which is what is kept; 0 = off
    # run
    seed: int = 0
    checkpoint_every: int = 200  # steps
    evaluate_every: int = 500  # steps; start and end are always evaluated
    devices: int = 0  # 0 = every GPU, or one CPU process
    workers: int = -1  # loader processes a device; -1 = 8 on a GPU, none on a CPU
    threads: int = 0  # CPU threads a process; 0 = torch's choice
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"

    def __post_init__(self) -> None:
        require_kinds(self)
        if self.crop <= 0 or self.crop % _PATCH:
            refuse("crop", self.crop, f"Give a multiple of {_PATCH} pixels.")
        for name in ("epochs", "batch", "base_lr", "std", "checkpoint_every", "evaluate_every"):
            if getattr(self, name) <= 0:
                refuse(name, getattr(self, name), "Give a positive number.")
        for name in ("steps", "micro_batch", "holdout", "warmup_epochs", "weight_decay", "clip", "devices", "threads"):
            if getattr(self, name) < 0:
                refuse(name, getattr(self, name), "It must not be negative.")
        for name in ("ema", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                refuse(name, getattr(self, name), "Give a share from 0 to below 1.")
        if not 0 < self.scale_min <= self.scale_max <= 1:
            refuse("scale_min", self.scale_min, "The shares must rise from above 0 to at most 1.")
        if not 0 <= self.seed < 1 << 32:
            refuse("seed", self.seed, "Give a whole number from 0 to 4294967295.")
        if self.workers < -1:
            refuse("workers", self.workers, "Give a number of processes, or -1 for the default.")

    def to_toml(self) -> str:
        """Return all values as TOML."""
        return tomli_w.dumps(asdict(self))


@dataclass(frozen=True)
class UnipRecipe(Pretraining):
    """NMI-HAD distillation (papers' scripts)."""

    teacher: str = ""  # a checkpoint file, a run, a timm model, hf:REPO[:FILE]
    layer: int = 0  # of the teacher, from 1, whose attention is distilled; 0 = by NMI
    target_nmi: float = 0.09  # the layer is the one whose NMI is nearest
    drop_path: float = 0.1  # of every block of the student
    compile: bool = False  # torch.compile of the teacher, whose shapes are one or two
    second_crop: int = 0  # side that every other micro-batch is reduced to, pixels (not in the paper); 0 = none

    @property
    def method(self) -> str:
        """Name of the method, as the command line has it."""
        return "unip"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer < 0:
            refuse("layer", self.layer, "Layers count from 1; 0 chooses by NMI.")
        if not 0 <= self.target_nmi <= 1:
            refuse("target_nmi", self.target_nmi, "Give a share between 0 and 1.")
        if self.second_crop and (self.second_crop % _PATCH or not 0 < self.second_crop < self.crop):
            refuse("second_crop", self.second_crop, f"Give a multiple of {_PATCH} pixels below crop, or 0 for none.")
        if not 0 <= self.drop_path < 1:
            refuse("drop_path", self.drop_path, "Give a share from 0 to below 1.")


@dataclass(frozen=True)
class MaeRecipe(Pretraining):
    """Masked auto-encoding: the baseline, and a way to make a teacher."""

    init: str = ""  # weights to go on from; "" = none
    mask: float = 0.75  # share of the patches that is hidden
    normalise: bool = True  # targets of zero mean and unit variance in each patch
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    @property
    def method(self) -> str:
        """Name of the method, as the command line has it."""
        return "mae"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask < 1:
            refuse("mask", self.mask, "Give a share between 0 and 1.")
        if self.decoder_dim < 1 or self.decoder_heads < 1 or self.decoder_dim % (4 * self.decoder_heads):
            refuse("decoder_dim", self.decoder_dim, "Give a multiple of four times decoder_heads.")
        if self.decoder_depth < 0:
            refuse("decoder_depth", self.decoder_depth, "It must not be negative.")
