"""The command line: one thin command a verb. Stations are imported inside the commands, so that help stays fast."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edgeunip import __version__, cli_cameras, cli_compress, cli_data, cli_device, cli_pretrain, logs, redaction
from edgeunip.defaults import say
from edgeunip.errors import EdgeunipError, missing_dependency, storage_error
from edgeunip.options import Data, Json, Modality, RecipeFile, Resumed, RunFolder, Settings, SeveralWords, Splits

app = typer.Typer(
    help="Thermal-infrared segmentation on embedded cameras: train a model, export one bundle, stream it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_cameras.app, name="cameras")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_pretrain.app, name="pretrain")
app.add_typer(cli_compress.trust, name="trust")


EXTRAS = {
    "torch": "train", "torchvision": "train", "timm": "train", "lightning_fabric": "train", "torchmetrics": "train",
    "tensorboard": "train", "matplotlib": "train", "safetensors": "train", "tqdm": "train", "tomli_w": "train",
    "huggingface_hub": "train", "pyarrow": "train", "openvino": "openvino", "nncf": "compress",
    "onnx": "compress", "onnxscript": "compress", "onnxruntime": "compress", "cryptography": "sign",
}  # fmt: skip


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
    size: Annotated[
        str | None,
        typer.Option(help="A ViT/16: micro, tiny (default), small, base, large; convolutional: edge-s, edge-xs."),
    ] = None,
    head: Annotated[str | None, typer.Option(help="Decoder: light (default) or uper (UPerNet, the reference).")] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Pre-trained encoder to start from: a run, a checkpoint file, unip-small, hf:REPO."),
    ] = None,
    modality: Modality = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    out: RunFolder = None,
    resume: Resumed = None,
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
    say(f"The run is in {run.path}. Next: edgeunip export {run.path}")


app.command()(cli_pretrain.probe)
app.command()(cli_pretrain.analyze)
app.command(cls=SeveralWords)(cli_pretrain.benchmark)
app.command()(cli_compress.distill)
app.command()(cli_compress.compare)


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


app.command()(cli_compress.export)
app.command()(cli_compress.show)
app.command()(cli_compress.sign)
app.command()(cli_compress.pack)
app.command()(cli_compress.unpack)


@app.command()
def verify(bundle: cli_compress.Bundle) -> None:
    """Check every file's hash and the signature, and run the golden sample on this machine."""
    from edgeunip import pack
    from edgeunip.runtimes.verify import verify as check

    with pack.unpacked(bundle) as folder:
        found = check(folder)
    shares = ", ".join(f"{100 * share:.2f} %" for share in found.agreement)
    print(f"{bundle} is sound: hashes right, golden frames agree {shares} on {found.runtime}; {found.signature}")


app.command()(cli_device.stream)
app.command()(cli_device.doctor)


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


def main() -> NoReturn:
    """Run the command line; every error is one line unless --debug is given."""
    _hold_standard_streams()
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # its own lines on a damaged image would double ours
    logs.set_up(debug=debug)
    try:
        app(arguments)
        sys.exit(0)
    except Exception as error:
        if debug:
            say(logs.traceback_of(error))  # not raised: typer puts its own hook in place, which prints all it has
        told = explain(error)
        say(redaction.clean(f"edgeunip: {told}"))
        sys.exit(told.exit_code)


def _hold_standard_streams() -> None:
    """Open what was closed at the start on nothing: a file of ours in its place would get what libraries print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


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
