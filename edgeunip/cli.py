"""The command line: one thin command a verb. Stations are imported inside the commands, so that help stays fast."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edgeunip import __version__
from edgeunip.defaults import say
from edgeunip.errors import EdgeunipError, missing_dependency, storage_error
from edgeunip.options import SeveralWords

app = typer.Typer(
    help="Thermal-infrared segmentation on embedded cameras: train a model, export one bundle, stream it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Check and make data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
pretrain_app = typer.Typer(
    help="Pre-train an encoder on unlabelled images.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(pretrain_app, name="pretrain")

EXTRAS = {
    "torch": "train", "torchvision": "train", "timm": "train", "lightning_fabric": "train", "torchmetrics": "train",
    "tensorboard": "train", "matplotlib": "train", "safetensors": "train", "tqdm": "train", "tomli_w": "train",
    "tomli": "train", "huggingface_hub": "train", "pyarrow": "train", "openvino": "openvino", "nncf": "compress",
}  # fmt: skip

Data = Annotated[
    str | None,
    typer.Option(help="Data set: a folder in edgeunip's format, or soda:DIR, mfnet:DIR, scut:DIR, msrs:DIR."),
]
Splits = Annotated[
    str | None, typer.Option(help="Sub-folder of the data set that holds train.txt, val.txt and test.txt.")
]
Modality = Annotated[
    str | None, typer.Option(help="What the images show: thermal (default), depth (one channel, too), or rgb.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A recipe value, key=value; may be repeated.")]
Json = Annotated[str | None, typer.Option("--json", help="Write the figures as JSON to this file; - prints them.")]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"edgeunip {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show a traceback with an error; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Hold what concerns every command; ``main`` has taken --debug out before."""


@app.command()
def train(
    data: Data = None,
    splits: Splits = None,
    size: Annotated[str | None, typer.Option(help="Backbone, a ViT/16: tiny (default), small, base or large.")] = None,
    head: Annotated[str | None, typer.Option(help="Decoder: light (default) or uper (UPerNet, the reference).")] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Pre-trained encoder to start from: a run, a checkpoint file, unip-small, hf:REPO."),
    ] = None,
    modality: Modality = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file of recipe values.")] = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: a new one in runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run instead of starting one.")] = None,
) -> None:
    """Train a model; without --data on the embedded scenes."""
    from edgeunip import defaults
    from edgeunip.train import fit
    from edgeunip.train import settings as values
    from edgeunip.train.datasets import open_data
    from edgeunip.train.recipe import Recipe

    if resume:
        run = fit.resume(resume, open_data(data, splits=splits) if data else None)
    else:
        named = {"size": size, "head": head, "init": init, "modality": modality}
        asked = values.collect(Recipe(), recipe, named, settings or [])
        run = fit.train(asked, open_data(data or defaults.scenes(say), splits=splits), out)
    say(f"The run is in {run.path}. Next: edgeunip export {run.path} --target x86-cpu --int8")


@app.command()
def probe(
    model: Annotated[str, typer.Argument(metavar="RUN_OR_CKPT", help="The encoder, as train --init takes it.")],
    data: Annotated[str, typer.Option(help="Labelled data set, as train takes it.")],
    splits: Splits = None,
    layers: Annotated[
        str | None, typer.Option("--layers", "--layer", help="Blocks to read, 4,6,8,12, or all: one probe each.")
    ] = None,
    modality: Modality = None,
    slide: Annotated[bool, typer.Option(help="Score by overlapping windows instead of resizing the image.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="TOML file of recipe values.")] = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: a new one in runs/.")] = None,
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


@app.command()
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


@app.command(cls=SeveralWords)
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


@app.command("eval")
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="Folder of a training run or of a bundle.")],
    data: Data = None,
    splits: Splits = None,
    split: Annotated[str, typer.Option(help="Which split to score.")] = "test",
    slide: Annotated[bool, typer.Option(help="Average overlapping windows instead of resizing the image.")] = False,
    json: Json = None,
) -> None:
    """Score a run or a bundle on labelled images: mIoU, IoU by class, pixel accuracy."""
    from edgeunip import defaults, scoring

    found = scoring.score(model, data, splits=splits, split=split, mode="slide" if slide else "whole")
    print(scoring.describe(found))
    defaults.write_json(found, json)


@app.command()
def export(
    run: Annotated[Path | None, typer.Argument(help="Folder of a training run. Default: the newest in runs/.")] = None,
    target: Annotated[str, typer.Option(help="What the bundle is for: x86-cpu.")] = "x86-cpu",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to 8 bits.")] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of images to calibrate int8 on. Default: the run's train split.")
    ] = None,
    data: Data = None,
    splits: Splits = None,
    out: Annotated[Path | None, typer.Option(help="The bundle. Default: bundles/RUN-TARGET[-int8].bundle.")] = None,
) -> None:
    """Turn a run into a bundle for one target, proven on the run's val split."""
    from edgeunip import defaults
    from edgeunip.compress import export as exporting
    from edgeunip.train import run as runs
    from edgeunip.train.datasets import open_data

    opened = runs.open_run(run or runs.latest(defaults.RUNS))
    chosen = open_data(data, splits=splits) if data else opened.data()
    place = out or defaults.bundle_folder(opened.path, target, int8=int8)
    exporting.export(opened, chosen, place, target=target, int8=int8, calibration=calibration, say=say)
    say(f"The bundle is {place}. Next: edgeunip stream SOURCE --model {place}")


@app.command()
def verify(bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")]) -> None:
    """Check every file's hash and run the golden sample on this machine."""
    from edgeunip.runtimes.verify import verify as check

    found = check(bundle)
    shares = ", ".join(f"{100 * share:.2f} %" for share in found.agreement)
    print(f"{bundle} is sound: hashes right, golden frames agree {shares} on {found.runtime}")


@app.command()
def stream(
    source: Annotated[
        str,
        typer.Argument(
            help="/dev/videoN, rtsp://.., a video file, an image folder, or synthetic://lepton|boson|tc001."
        ),
    ],
    model: Annotated[Path | None, typer.Option(help="The bundle. Default: the newest in bundles/.")] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(help="video:FILE.mkv, jsonl:FILE (- prints) or web:PORT; may be repeated. Default: web:8080."),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="End after this many frames.")] = None,
    camera: Annotated[
        str | None, typer.Option(help="Camera profile (lepton, boson, tc001, tc002c, raw): how counts become degC.")
    ] = None,
) -> None:
    """Segment a camera, a file or a folder, live: overlay video, JSON lines, web page."""
    from edgeunip import console, defaults

    console.stream(source, model or defaults.newest_bundle(say), sink or ["web:8080"], frames=frames, profile=camera)


@app.command()
def bench(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    seconds: Annotated[float, typer.Option(help="Roughly how long to measure, seconds.")] = 20.0,
    threads: Annotated[int | None, typer.Option(help="Processor threads. Default: the runtime's choice.")] = None,
    json: Json = None,
) -> None:
    """Measure a bundle on this machine: latency, throughput, and what the stream loop leaves of it."""
    from edgeunip import bundle as bundles
    from edgeunip import defaults
    from edgeunip.runtimes.bench import bench as measure
    from edgeunip.runtimes.bench import describe

    found = measure(bundles.load(bundle), seconds=seconds, threads=threads)
    print(describe(found))
    defaults.write_json(found.to_json(), json)


@app.command()
def demo(
    data: Data = None,
    splits: Splits = None,
    out: Annotated[Path, typer.Option(help="Folder of everything the demo makes.")] = Path("demo"),
) -> None:
    """Show the whole way in minutes: scenes or --data, train, eval, export int8, verify, stream, report."""
    from edgeunip import demo as demonstration

    report = demonstration.run(out, data, splits=splits, say=say)
    say(f"Done. Open {report}")


Unlabelled = Annotated[
    str | None, typer.Option(help="Images: an index (NAME.parquet of `edgeunip data index`) or a folder of images.")
]
Student = Annotated[
    str | None, typer.Option(help="Encoder that is trained, a ViT/16: tiny, small (default) or base; mae: large too.")
]
RecipeFile = Annotated[Path | None, typer.Option(help="TOML file of recipe values.")]
RunFolder = Annotated[Path | None, typer.Option(help="Folder of the run. Default: a new one in runs/.")]
Resumed = Annotated[Path | None, typer.Option(help="Go on with this run instead of starting one.")]
Described = Annotated[
    bool, typer.Option("--describe", help="Print parameters, MACs, steps and batch as JSON; train nothing.")
]


@pretrain_app.command("unip")
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


@pretrain_app.command("mae")
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


@data_app.command("check")
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


@data_app.command()
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


@data_app.command()
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


def main() -> NoReturn:
    """Run the command line; every error is one line unless --debug is given."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # its own lines on a damaged image would double ours
    try:
        app(arguments)
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        told = explain(error)
        say(f"edgeunip: {told}")
        sys.exit(told.exit_code)


def explain(error: Exception) -> EdgeunipError:
    """Return an error as the one line a user reads."""
    if isinstance(error, EdgeunipError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        told = missing_dependency(error, error.name, EXTRAS[error.name])
        if isinstance(told, EdgeunipError):
            return told
    if isinstance(error, OSError) and error.filename is not None:
        return storage_error(error, error.filename)
    return EdgeunipError(
        "Unexpected error", why=f"{type(error).__name__}: {error}", remedy="Run it again with --debug and report it."
    )
