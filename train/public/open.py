"""From a name to an encoder: a file, a run, a hub, the authors' UNIP, a timm model, an untrained architecture."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

import safetensors
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from edgeunip.errors import HubError, UsageError, WeightsError
from edgeunip.train.encoder import Encoder, Origin, blocks, require_plain, set_heads
from edgeunip.train.public import files, formats, hub, own
from edgeunip.train.public.build import build, usual_heads
from edgeunip.train.run import WEIGHTS

UNIP_REPO = "casiatao/UNIP"
UNIP_TEACHERS = {"mae": "mae_large", "ibot": "ibot_large", "dino": "dino_base"}
UNIP_SIZES = ("tiny", "small", "base")
# Heads of UNIP's teachers, which are those of its students' last block.
_TEACHER_HEADS = {"mae_large": 16, "ibot_large": 16, "dino_base": 12}
# What the authors publish their weights under; a file others trained in the same format may be under another.
_LICENCES = {formats.UNIP: "CC-BY-NC-4.0", "MAE": "CC-BY-NC-4.0", "MAE, fine-tuned": "CC-BY-NC-4.0"}


def open_encoder(name: str, *, heads: int = 0, last_heads: int = 0, say: Callable[[str], None]) -> Encoder:
    """Open an encoder by name.

    Args:
        name: one of

            - a checkpoint file (UNIP, MAE, DINO, iBOT, MoCo v3, DeiT, timm, our own), or the folder of one of our runs;
            - ``hf:OWNER/NAME`` or ``hf:OWNER/NAME:FILE``, a checkpoint on a hub;
            - ``unip-tiny``, ``unip-small`` or ``unip-base``, the authors' weights, and ``unip-small:ibot`` for those
              of another teacher;
            - a plain ViT of timm with its published weights, as ``vit_base_patch16_224.mae``;
            - ``random:TIMM_NAME`` or ``random:TIMM_NAME:SEED``, an untrained one.

            A file or folder that has the name of a model is meant by ``./NAME``.
        heads: of the blocks, for weights that do not tell; 0 = as is usual for their width.
        last_heads: of the last block; 0 = as the weights tell, else as the other blocks. Another number than the
            weights' re-splits them into another attention.
        say: is told what was opened and its licence.

    Raises:
        UsageError: no such name, or the heads are needed and not known, or known to be others.
        WeightsError: a file is damaged, in no known format, or does not cover a plain ViT whole.
        RunError: a run has not ended.
        HubError: the hub cannot be reached or does not have it.
    """
    encoder = _open(name, heads, last_heads)
    if heads and encoder.heads[0] != heads:
        what = f"The encoder has {encoder.heads[0]} heads, not {heads}"
        raise UsageError(what, where=name, remedy="Leave --heads out.")
    if last_heads:
        set_heads(blocks(encoder.vit)[-1], last_heads)
    origin = encoder.origin
    licence = "" if origin.kind == "untrained" else f", licence {origin.licence or 'not stated'}"
    left = f", {len(origin.left_out)} tensors beside the encoder left out" if origin.left_out else ""
    say(f"Encoder {name}: {origin.kind}{licence}{left}")
    return encoder


def _open(name: str, heads: int, last_heads: int) -> Encoder:
    kind, _, rest = name.partition(":")
    if kind == "hf":
        repo, _, file = rest.partition(":")
        return _from_hub(name, repo, file or _only_file(repo), heads, last_heads)
    if kind == "random":
        return _untrained(name, rest)
    if kind in (f"unip-{size}" for size in UNIP_SIZES):
        return _from_hub(name, UNIP_REPO, _unip_file(kind.removeprefix("unip-"), rest or "mae"), heads, last_heads)
    if kind in _architectures(pretrained=True):
        return _from_timm(name)
    path = Path(name).expanduser()
    if name and path.exists():
        return _from_path(path, name, heads, last_heads)
    raise _unknown(name)


def _from_path(path: Path, name: str, heads: int, last_heads: int) -> Encoder:
    folder = path.parent if path.name == WEIGHTS else path
    if own.is_run(folder):
        return own.open_run(folder, name)
    if path.is_dir():
        remedy = "Name a run's folder (it holds recipe.toml) or a checkpoint file."
        raise UsageError("The folder is no training run", where=path, remedy=remedy)
    return _from_file(path, name, heads, last_heads)


def _from_file(path: Path, name: str, heads: int, last_heads: int) -> Encoder:
    file = files.read(path)
    if own.is_own(file):
        return own.open_own(file, name)
    weights = formats.find(file)
    width = weights.tensors[formats.PATCHES].shape[0]
    number = [heads or usual_heads(width, path)] * formats.depth(weights.tensors)
    if number:
        number[-1] = last_heads or _last_heads(file, weights, number[-1])
    vit = build(weights.tensors, number, where=path)
    licence = _LICENCES.get(weights.kind)
    return Encoder(vit, Origin(name, weights.kind, str(path), file.sha256, licence, weights.left_out))


def _last_heads(file: files.File, weights: formats.Weights, others: int) -> int:
    """Return the last block's heads. UNIP's are the teacher's, and the weights have the same shape with any number."""
    if weights.kind not in (formats.UNIP, formats.OWN_RUN):
        return others
    if known := int(file.arguments.get("last_heads") or 0):
        return known
    for teacher, number in _TEACHER_HEADS.items():
        if f"{teacher}_" in file.path.name and "distill" in file.path.name:
            return number
    remedy = "Give the teacher's number of heads: --last-heads N (16 for MAE-L and iBOT-L, 12 for DINO-B)."
    if weights.kind == formats.OWN_RUN:
        remedy = "Name the run's folder instead, or give --last-heads N."
    what = "The last block's heads do not stand in the weights"
    raise UsageError(what, where=file.path, why=f"a file of {weights.kind}", remedy=remedy)


def _from_hub(name: str, repo: str, file: str, heads: int, last_heads: int) -> Encoder:
    fetched = hub.fetch(repo, file)
    encoder = _from_file(fetched.path, name, heads, last_heads)
    licence = fetched.licence or encoder.origin.licence
    return replace(encoder, origin=replace(encoder.origin, licence=licence))


def _only_file(repo: str) -> str:
    known = [file for file in hub.files(repo) if file.endswith(files.SUFFIXES)]
    named = [file for file in known if file == "model.safetensors"] or known
    if len(named) != 1:
        why = f"it holds {', '.join(known) or 'none'}"
        remedy = f"Name one: hf:{repo}:FILE."
        raise HubError("The repository does not hold one checkpoint", where=repo, why=why, remedy=remedy)
    return named[0]


def _unip_file(size: str, teacher: str) -> str:
    if teacher not in UNIP_TEACHERS:
        remedy = f"Write unip-{size}:TEACHER with one of {', '.join(UNIP_TEACHERS)}."
        raise UsageError("UNIP has no such teacher", where=teacher, remedy=remedy)
    stem = f"{UNIP_TEACHERS[teacher]}_*unip_{size}_*"
    for listing in (hub.cached, partial(hub.files, wanted=f"{stem}.pth")):
        found = listing(UNIP_REPO)
        if chosen := [file for file in found if PurePath(file).match(stem) and file.endswith(files.SUFFIXES)]:
            return chosen[0]
    why = f"it holds {', '.join(found)}"
    raise HubError(f"The repository has no UNIP-{size} of {teacher}", where=UNIP_REPO, why=why)


def _from_timm(name: str) -> Encoder:
    """Fetch timm's own copy of the weights; timm loads it, strictly, as it does for everybody."""
    about = timm.get_pretrained_cfg(name)
    if about is None or not about.hf_hub_id:
        tags = [one for one in timm.list_pretrained(f"{name.partition('.')[0]}.*")]
        remedy = f"Choose one of {', '.join(tags)}." if tags else f"random:{name} is the untrained one."
        raise UsageError("timm has no such weights", where=name, remedy=remedy)
    fetched = hub.fetch(about.hf_hub_id, about.hf_hub_filename or "model.safetensors")
    overlay = {"file": str(fetched.path), "custom_load": False}
    try:
        with torch.random.fork_rng(devices=[]):
            vit = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsError("timm cannot load the weights", where=fetched.path, why=error) from error
    digest, licence = files.sha256(fetched.path), about.license or fetched.licence
    return Encoder(_plain(vit, name), Origin(name, "timm", str(fetched.path), digest, licence))


def _untrained(name: str, rest: str) -> Encoder:
    architecture, _, seed = rest.partition(":")
    if architecture not in _architectures(pretrained=False) or not re.fullmatch(r"\d*", seed):
        raise _unknown(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed or 0))
        vit = timm.create_model(architecture, pretrained=False)
    return Encoder(_plain(vit, name), Origin(name, "untrained"))


def _plain(vit: torch.nn.Module, name: str) -> VisionTransformer:
    """Take off the classifier, and make distilled DeiT's second token the register it is."""
    if isinstance(vit, VisionTransformer) and getattr(vit, "dist_token", None) is not None:
        heads = [block.attn.num_heads for block in blocks(vit)]
        weights = formats.find(files.File(Path(name), "", dict(vit.state_dict())))
        vit = build(weights.tensors, heads, where=name)
    require_plain(vit, name)
    assert isinstance(vit, VisionTransformer)
    vit.reset_classifier(0)
    return vit


def _architectures(*, pretrained: bool) -> set[str]:
    """Return timm's plain ViTs; with the tags of their published weights too."""
    modules = ("vision_transformer", "deit")
    found = {name for module in modules for name in timm.list_models(module=module)}
    tagged = {name for module in modules for name in timm.list_models(module=module, pretrained=True)}
    return found | tagged if pretrained else found


def _unknown(name: str) -> UsageError:
    bare = name.rpartition(":")[0].partition(":")[2] or name.rpartition(":")[2]
    names = {f"unip-{size}" for size in UNIP_SIZES} | _architectures(pretrained="." in bare)
    if "/" in bare or bare.endswith(files.SUFFIXES):
        return UsageError("No such file or folder", where=name)
    start = "random:" if name.startswith("random:") else ""
    matches = [start + match for match in difflib.get_close_matches(bare, names, n=3)]
    guess = f"Did you mean {' or '.join(matches)}? " if matches else ""
    remedy = f"{guess}Name a file, a run, hf:OWNER/NAME[:FILE], unip-small, random:NAME or a plain ViT of timm."
    return UsageError("Unknown encoder", where=name, remedy=remedy)
