"""The commands on finished models: export, distill, compare, show, pack, unpack, sign, and whom this device trusts."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgeunip.defaults import say
from edgeunip.options import Data, Json, RecipeFile, Resumed, RunFolder, Settings, Splits

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or a packed one (NAME.edgeunip).")]
BundleFolder = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")]

trust = typer.Typer(
    help="Whose signatures this device believes, and whether it runs unsigned bundles.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Switch(str, Enum):
    """On or off."""

    ON = "on"
    OFF = "off"


class Int8Mode(str, Enum):
    """How ``export --int8`` looks for int8."""

    fast = "fast"
    accurate = "accurate"


class OnMiss(str, Enum):
    """What ``export --int8`` does when nothing is within the budget."""

    fail = "fail"
    float = "float"


def export(
    run: Annotated[Path | None, typer.Argument(help="Folder of a training run. Default: the newest in runs/.")] = None,
    target: Annotated[
        str, typer.Option(help="What the bundle is for: x86-cpu, arm-cpu, onnx, jetson-orin or jetson-xavier.")
    ] = "x86-cpu",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to 8 bits, within the budget below.")] = False,
    int8_mode: Annotated[
        Int8Mode, typer.Option(help="Take the first int8 within the budget, or try all and take the best.")
    ] = Int8Mode.fast,
    max_drop: Annotated[float, typer.Option(help="Budget: points of mIoU that int8 may lose on the val split.")] = 1.0,
    min_speedup: Annotated[
        float, typer.Option(help="Budget: how many times float's speed int8 must have, where this machine can tell.")
    ] = 1.2,
    on_miss: Annotated[
        OnMiss, typer.Option(help="With no int8 within the budget: fail, or export float.")
    ] = OnMiss.fail,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of images to calibrate int8 on. Default: the run's train split.")
    ] = None,
    data: Data = None,
    splits: Splits = None,
    sign: Annotated[Path | None, typer.Option(help="Private key to sign the bundle with (edgeunip trust new).")] = None,
    out: Annotated[Path | None, typer.Option(help="The bundle. Default: bundles/RUN-TARGET[-int8].bundle.")] = None,
) -> None:
    """Turn a run into a bundle for one target, proven on the run's val split."""
    from edgeunip import defaults
    from edgeunip.compress import export as exporting
    from edgeunip.compress.search import Budget
    from edgeunip.train import run as runs
    from edgeunip.train.datasets import open_data

    opened = runs.open_run(run or runs.latest(defaults.RUNS))
    chosen = open_data(data, splits=splits) if data else opened.data()
    place = out or defaults.bundle_folder(opened.path, target, int8=int8)
    asked = exporting.Int8(Budget(max_drop, min_speedup), int8_mode.value, on_miss.value, calibration)
    exporting.export(opened, chosen, place, target=target, int8=asked if int8 else None, sign=sign, say=say)
    say(f"The bundle is {place}. Next: edgeunip {defaults.after_export(target, place)}")


def compare(
    models: Annotated[
        list[Path], typer.Argument(help="Runs, bundles, and ONNX or OpenVINO files with an adapter beside them.")
    ],
    data: Data = None,
    splits: Splits = None,
    split: Annotated[str, typer.Option(help="Which split to score.")] = "test",
    threads: Annotated[int, typer.Option(help="Processor threads of each model.")] = 2,
    seconds: Annotated[float, typer.Option(help="Roughly how long to time each model, seconds.")] = 5.0,
    adapter: Annotated[Path | None, typer.Option(help="Adapter of the model files that have none beside them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the table, the plot and the page.")] = None,
    json: Json = None,
) -> None:
    """Compare models in accuracy, latency, size and work, on one engine and one data set."""
    from edgeunip import defaults
    from edgeunip.compress import compare as comparing
    from edgeunip.compress import compare_report
    from edgeunip.train.datasets import open_data

    chosen = open_data(data, splits=splits) if data else None
    found = comparing.compare(models, chosen, split=split, threads=threads, seconds=seconds, adapter=adapter, say=say)
    (say if json == "-" else print)(compare_report.describe(found))
    if out:
        compare_report.write(out, found)
    defaults.write_json(found.to_json(), json)


def distill(
    teacher: Annotated[str | None, typer.Option(help="Folder of the finished run that teaches.")] = None,
    student: Annotated[
        str | None, typer.Option(help="The model that learns: edge-s (default), edge-xs, micro, tiny, ..")
    ] = None,
    data: Data = None,
    splits: Splits = None,
    unlabelled: Annotated[
        str | None, typer.Option(help="More images, without labels: a folder, or an index (NAME.parquet).")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder of the teacher's outputs. Default: cache/ beside the run.")
    ] = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    out: RunFolder = None,
    resume: Resumed = None,
) -> None:
    """Teach a small model what a finished run knows; --data is the teacher's own by default."""
    from edgeunip.compress.distill import command

    run = command.run(
        {"teacher": teacher, "size": student, "unlabelled": unlabelled, "cache": cache}, recipe, settings or [],
        data=data, splits=splits, out=out, resume=resume,
    )  # fmt: skip
    say(f"The run is in {run.path}. Next: edgeunip export {run.path}")


def show(bundle: Bundle, json: Json = None) -> None:
    """Show what a bundle holds: classes, accuracy, precision of every layer, sizes, signature, provenance."""
    from edgeunip import card, defaults

    found = card.read(bundle)
    if json != "-":
        print(card.describe(found, colour=sys.stdout.isatty()))
    defaults.write_json(card.to_json(found), json)


def pack(
    bundle: BundleFolder,
    out: Annotated[Path | None, typer.Option(help="The file. Default: NAME.edgeunip beside the bundle.")] = None,
) -> None:
    """Put a bundle into one file, always the same bytes for the same bundle."""
    from edgeunip import pack as packing

    place = out or packing.default_file(bundle)
    packed = packing.pack(bundle, place)
    say(f"{place}: {packed.size / 1e6:.2f} MB. Next, on the device: edgeunip unpack {place.name}")


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A packed bundle, NAME.edgeunip.")],
    out: Annotated[Path | None, typer.Option(help="The bundle. Default: NAME.bundle beside the file.")] = None,
) -> None:
    """Unpack a bundle; every byte is checked before one is written."""
    from edgeunip import pack as packing
    from edgeunip import trust as trusting

    place = out or packing.default_folder(file)
    found = packing.unpack(file, place)
    say(f"The bundle is {place}, {trusting.inspect(found.manifest, found.signature())}")


def sign(
    bundle: BundleFolder,
    key: Annotated[Path, typer.Option(help="File of a private key, made by: edgeunip trust new.")],
) -> None:
    """Sign a bundle with an Ed25519 key."""
    from edgeunip import trust as trusting

    found = trusting.sign(bundle, key).signature()
    say(f"{bundle} is signed by the key {found.key_id[:16] if found else ''}")


@trust.command()
def new(key: Annotated[Path, typer.Argument(metavar="KEYFILE", help="File of the private key to make.")]) -> None:
    """Make a key pair: KEYFILE, to be kept secret, and KEYFILE.pub, for the devices."""
    from edgeunip import signature

    public = signature.new_key(key)
    say(f"Key {public.id[:16]}: keep {key} to yourself; on each device: edgeunip trust add {key.name}.pub")


@trust.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE.pub", help="A public key.")],
    name: Annotated[str | None, typer.Option(help="What to know it by. Default: the file's name.")] = None,
) -> None:
    """Believe a public key's signatures on this device."""
    from edgeunip import trust as trusting

    known_as, key = trusting.add(file, name=name)
    say(f"Key {key.id[:16]} is trusted as {known_as}")


@trust.command("list")
def known() -> None:
    """List the keys this device believes, and its policy."""
    from edgeunip import trust as trusting

    for name, key in trusting.known().items():
        print(f"{key.id[:16]}  {name}")
    print(f"{trusting.folder()}: a signature is {'required' if trusting.is_required() else 'not required'}")


@trust.command()
def remove(name: Annotated[str, typer.Argument(help="Name of a trusted key, from: edgeunip trust list.")]) -> None:
    """No longer believe a key on this device."""
    from edgeunip import trust as trusting

    trusting.remove(name)
    say(f"{name} is no longer trusted")


@trust.command()
def require(switch: Annotated[Switch, typer.Argument(help="on: run only bundles that a trusted key signed.")]) -> None:
    """Say whether this device runs bundles that no trusted key signed."""
    from edgeunip import trust as trusting

    trusting.require(switch is Switch.ON)
    keys = len(trusting.known())
    say(f"A signature is {'required' if switch is Switch.ON else 'not required'}; {keys} keys are trusted")
