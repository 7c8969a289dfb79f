"""The commands around pre-training: distil, auto-encode, analyze, probe, benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeunip.defaults import say
from edgeunip.options import Json, Modality, RecipeFile, Resumed, RunFolder, Settings, Splits

app = typer.Typer(help="Pre-train an encoder on unlabelled images.", no_args_is_help=True, rich_markup_mode=None)

Unlabelled = Annotated[
    str | None, typer.Option(help="Images: an index (NAME.parquet of `edgeunip data index`) or a folder of images.")
]
Student = Annotated[
    str | None, typer.Option(help="Encoder that is trained, a ViT/16: tiny, small (default) or base; mae: large too.")
]
Described = Annotated[
    bool, typer.Option("--describe", help="Print parameters, MACs, steps and batch as JSON; train nothing.")
]


@app.command("unip")
def pretrain_unip(
    teacher: Annotated[
        str | None,
        typer.Option(help="Whose attention is learned: a file, a run, a timm ViT, hf:REPO[:FILE]."),
    ] = None,
    data: Unlabelled = None,
    size: Student = None,
    layer: Annotated[
        str, typer.Option(help="Layer of the teacher, counted from 1; auto takes the one whose NMI is nearest to 0.09.")
    ] = "auto",
    recipe: RecipeFile = None,
    settings: Settings = None,
    out: RunFolder = None,
    resume: Resumed = None,
    describe: Described = False,
) -> None:
    """Distil one layer of a teacher's attention into a student (UNIP's NMI-HAD)."""
    from edgeunip.train.pretrain import command
    from edgeunip.train.pretrain.recipe import UnipRecipe

    named = {"teacher": teacher, "size": size, "layer": None if layer == "auto" else layer}
    command.run(UnipRecipe(), named, data, recipe, settings, out=out, resume=resume, describe=describe, say=say)


@app.command("mae")
def pretrain_mae(
    data: Unlabelled = None,
    size: Student = None,
    init: Annotated[str | None, typer.Option(help="Weights to go on from, named as a teacher is.")] = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    out: RunFolder = None,
    resume: Resumed = None,
    describe: Described = False,
) -> None:
    """Train a masked auto-encoder: the baseline UNIP is measured against, and a way to make a teacher."""
    from edgeunip.train.pretrain import command
    from edgeunip.train.pretrain.recipe import MaeRecipe

    named = {"init": init, "size": size}
    command.run(MaeRecipe(), named, data, recipe, settings, out=out, resume=resume, describe=describe, say=say)


def probe(
    model: Annotated[str, typer.Argument(metavar="RUN_OR_CKPT", help="The encoder, as train --init takes it.")],
    data: Annotated[str, typer.Option(help="Labelled data set, as train takes it.")],
    splits: Splits = None,
    layers: Annotated[
        str | None, typer.Option("--layers", "--layer", help="Blocks to read, 4,6,8,12, or all: one probe each.")
    ] = None,
    modality: Modality = None,
    slide: Annotated[bool, typer.Option(help="Score by overlapping windows instead of resizing the image.")] = False,
    recipe: RecipeFile = None,
    settings: Settings = None,
    out: RunFolder = None,
    json: Json = None,
) -> None:
    """Train linear probes on an encoder's frozen features: what they hold, block by block if asked."""
    from edgeunip import defaults
    from edgeunip.train import probe as probing
    from edgeunip.train import settings as values
    from edgeunip.train.datasets import open_data

    named = {"head": "linear", "init": model, "layers": layers, "modality": modality}
    asked = values.collect(probing.RECIPE, recipe, named, settings or [])
    found = probing.probe(asked, open_data(data, splits=splits), out, mode="slide" if slide else "whole")
    (say if json == "-" else print)(str(found))
    defaults.write_json(found.to_json(), json)


def analyze(
    teacher: Annotated[
        str, typer.Argument(help="A checkpoint file, a run, a ViT of timm, hf:REPO[:FILE], unip-SIZE or random:NAME.")
    ],
    images: Annotated[Path, typer.Option(help="Folder of images, 8 or 16 bits, gray or colour.")],
    out: Annotated[Path | None, typer.Option(help="Write the report, one HTML file, here.")] = None,
    json: Json = None,
    limit: Annotated[int, typer.Option(help="Images at most, spread evenly over the folder.")] = 64,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH, or native for each image's own. Default: the model's own.")
    ] = None,
    target: Annotated[float, typer.Option(help="NMI of the layer to choose.")] = 0.09,
    local_above: Annotated[float, typer.Option(help="NMI above which a layer is local.")] = 0.12,
    global_below: Annotated[float, typer.Option(help="NMI below which a layer is global.")] = 0.06,
    normalise: Annotated[str, typer.Option(help="Mean and deviation of pixels: thermal or imagenet.")] = "thermal",
    rgb: Annotated[bool, typer.Option("--rgb", help="Keep the colours of colour images.")] = False,
    heads: Annotated[int, typer.Option(help="Heads of all blocks; 0: as the weights tell.")] = 0,
    last_heads: Annotated[int, typer.Option(help="Heads of the last block; 0: as the weights tell.")] = 0,
) -> None:
    """Measure a ViT's attention layer by layer, and name the layer that NMI-HAD would distil."""
    from edgeunip import defaults
    from edgeunip.train.attention import analysis, choice, pictures, report
    from edgeunip.train.public.open import open_encoder

    borders = choice.Borders(local_above, global_below)
    paths = pictures.spread(pictures.find(images), limit)
    encoder = analysis.on_best_device(open_encoder(teacher, heads=heads, last_heads=last_heads, say=say))
    how = analysis.preparation(encoder, size, normalise=normalise, rgb=rgb)
    found = analysis.analyse(encoder, paths, how, target=target, borders=borders, say=say)
    (say if json == "-" else print)(analysis.describe(found))
    defaults.write_json(found.to_json(), json)
    if out:
        report.write(out, found, encoder)
        say(f"The report is {out}")


def benchmark(
    inits: Annotated[list[str], typer.Option(help="Encoders as train --init takes them, and scratch: --inits A B C.")],
    data: Annotated[list[str], typer.Option(help="Data sets with a test split, as train takes them.")],
    out: Annotated[Path, typer.Option(help="Folder of all runs and of the results; goes on where it was stopped.")],
    mode: Annotated[list[str] | None, typer.Option(help="ft (fine-tuning), lp (linear probe) or ft,lp.")] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="A run each. Default: 0 1 2.")] = None,
    splits: Annotated[
        list[str] | None, typer.Option(help="Sub-folder of the lists: one for all data sets, or one each (. for none).")
    ] = None,
    slide: Annotated[bool, typer.Option(help="Score by overlapping windows instead of resizing the image.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="TOML file of recipe values, the same for all.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for all, ft.key=value or lp.key=value for one mode.")
    ] = None,
) -> None:
    """Compare pre-trained encoders: each on each data set, fine-tuned and probed, over several seeds."""
    from edgeunip.train import benchmark as comparing

    plan = comparing.read_plan(
        inits, data, splits or [], mode or ["ft,lp"], seeds or [0, 1, 2],
        recipe=recipe, values=settings or [], scoring="slide" if slide else "whole",
    )  # fmt: skip
    results = comparing.run(plan, out, say=say)
    print((out / "results.md").read_text(), end="")
    raise typer.Exit(1 if any(result.error for result in results) else 0)
