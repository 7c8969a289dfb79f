"""Reading the reference's vectors (tests/golden) and naming its weights as ours."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"

RENAMES = [
    (r"^(cls_token|pos_embed|patch_embed|blocks)", r"backbone.vit.\1"),
    (r"\.gamma_([12])$", r".ls\1.gamma"),
    (r"^fpn1", "pyramid.to_quarter"),
    (r"^fpn2\.0", "pyramid.to_eighth"),
    (r"^decode_head\.conv_seg", "head.classify"),
    (r"^decode_head\.psp_modules\.(\d)\.1", r"head.pools.\1"),
    (r"^decode_head\.bottleneck", "head.bottleneck"),
    (r"^decode_head\.lateral_convs", "head.laterals"),
    (r"^decode_head\.fpn_convs", "head.smooths"),
    (r"^decode_head\.fpn_bottleneck", "head.fuse"),
    (r"^auxiliary_head\.conv_seg", "auxiliary.classify"),
    (r"^auxiliary_head\.convs\.0", "auxiliary.conv"),
    (r"^(head|auxiliary)(.*)\.conv\.weight$", r"\1\2.0.weight"),
    (r"^(head|auxiliary)(.*)\.bn\.", r"\1\2.1."),
]


def load(name: str) -> dict[str, NDArray[np.generic]]:
    with np.load(GOLDEN / f"{name}.npz") as data:
        return {key: data[key] for key in data}


def ours(name: str) -> str:
    """Translate a reference parameter name."""
    name = name.removeprefix("backbone.")
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def weights(data: dict[str, NDArray[np.generic]], prefix: str = "weights/") -> dict[str, Tensor]:
    """The stored weights under our names; the unused final norm of the backbone is left out."""
    named = {ours(key[len(prefix) :]): torch.from_numpy(value) for key, value in data.items() if key.startswith(prefix)}
    return {name: value for name, value in named.items() if name not in ("norm.weight", "norm.bias")}
