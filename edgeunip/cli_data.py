"""The commands on data sets: check, index, synth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeunip.defaults import say
from edgeunip.options import Json, Splits

app = typer.Typer(help="Check, index and make data sets.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check")
def check(
    data: Annotated[str, typer.Argument(metavar="DIR", help="The data set.")],
    splits: Splits = None,
    modality: Annotated[str, typer.Option(help="What the images show: thermal, depth or rgb.")] = "thermal",
) -> None:
    """List every defect of a data set in one pass; exit code 1 when there is one."""
    from edgeunip.train import check as checking
    from edgeunip.train.datasets import open_data

    report = checking.check(open_data(data, splits=splits).seen_as(modality))
    for line in (*report.defects, *(f"warning: {warning}" for warning in report.warnings)):
        print(line)
    print(f"{data}: {report.images} images, {len(report.defects)} defects, {len(report.warnings)} warnings")
    raise typer.Exit(1 if report.defects else 0)


@app.command()
def index(
    name: Annotated[str, typer.Argument(help="Name of the index; it becomes OUT/NAME.parquet.")],
    source: Annotated[
        list[str],
        typer.Option(
            help="DIR[,every=K][,per-class=N][,crop=PX][,peak=V][,list=FILE][,set=NAME][,licence=TEXT], or infpre:DIR, "
            "msip:DIR, imagenet:DIR, coco:DIR, infmix:DIR, hf:REPO; may be repeated."
        ),
    ],
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out the images of this labelled data set: DATASET[,splits=val+test][,lists=SUBFOLDER]; "
            "may be repeated."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the index.")] = Path("data"),
    near: Annotated[
        int, typer.Option(help="Hash bits in which near duplicates differ at most, 0 to 11; -1 keeps near duplicates.")
    ] = 4,
    shards: Annotated[int, typer.Option(help="Pack so many images a tar shard; 0 packs none.")] = 0,
    json: Json = None,
) -> None:
    """Index unlabelled images for pre-training: sampled, without duplicates, without evaluation images."""
    from edgeunip import defaults
    from edgeunip.train.corpus import index as indexing

    found = indexing.build(name, source, exclude=exclude or [], out=out, near=near, per_shard=shards, say=say)
    (say if json == "-" else print)(indexing.describe(found))
    defaults.write_json(found.to_json(), json)


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    images: Annotated[int, typer.Option(help="Number of images.")] = 400,
    sensor: Annotated[str, typer.Option(help="Sensor model: lepton, boson or tc001.")] = "tc001",
    seed: Annotated[int, typer.Option(help="Seed of scenes and noise.")] = 0,
) -> None:
    """Make a data set of procedural radiometric scenes with exact masks."""
    from edgeunip.scenes import synthesise

    synthesise(out, images, sensor=sensor, seed=seed)
    say(f"{images} images in {out}")
