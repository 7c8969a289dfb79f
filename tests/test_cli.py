"""The command line as its user meets it: help, defaults, one clear line for every wrong input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeunip.cli import explain, main

COMMAND = [sys.executable, "-c", "from edgeunip.cli import main; main()"]


def edgeunip(*arguments: object, folder: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [*COMMAND, *map(str, arguments)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


HEAVY = {"torch", "numpy", "cv2", "timm", "openvino", "av", "starlette"}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["data", "check", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import atexit, sys, json\n"
        f"sys.argv = ['edgeunip', *{arguments!r}]\n"
        f"atexit.register(lambda: print('LOADED', json.dumps(sorted({HEAVY!r} & sys.modules.keys()))))\n"
        "from edgeunip.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_help_negative_control() -> None:
    """The same look at sys.modules does see a heavy import."""
    code = f"import sys, json, numpy\nprint('LOADED', json.dumps(sorted({HEAVY!r} & sys.modules.keys())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "numpy" in done.stdout


def test_every_option_explains_itself() -> None:
    import typer

    from edgeunip.cli import app

    def commands(group: object) -> list[object]:
        found = []
        for command in getattr(group, "commands", {}).values():
            found += commands(command) if hasattr(command, "commands") else [command]
        return found

    checked = 0
    for command in commands(typer.main.get_command(app)):
        assert command.help and command.help.strip().endswith((".", "report.")), command.name  # type: ignore[attr-defined]
        for parameter in command.params:  # type: ignore[attr-defined]
            if parameter.name == "help":
                continue
            text = getattr(parameter, "help", None)
            assert text and text.rstrip().endswith("."), f"{command.name} {parameter.name}"  # type: ignore[attr-defined]
            checked += 1
    assert checked > 25


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["train", "--data", "nowhere"], 1, ["No such data-set folder", "nowhere"]),
        (["train", "--size", "huge", "--data", "."], 2, ["size", "huge", "tiny, small, base, large"]),
        (["train", "--set", "stepz=3", "--data", "."], 2, ["Unknown recipe key", "stepz", "Did you mean steps"]),
        (["train", "--set", "steps", "--data", "."], 2, ["key=value", "steps"]),
        (["train", "--set", "steps=many", "--data", "."], 2, ["steps", "many", "int"]),
        (["train", "--recipe", "no.toml", "--data", "."], 2, ["Cannot read the recipe", "no.toml"]),
        (["train", "--modality", "rbg", "--data", "."], 2, ["modality", "rbg", "thermal, depth, rgb"]),
        (["probe", "unip-tiny", "--data", "nowhere"], 1, ["No such data-set folder", "nowhere"]),
        (["probe", "unip-tiny", "--data", ".", "--set", "head=3"], 2, ["head", "light, uper, linear"]),
        (["benchmark", "--inits", "a", "b", "--data", "x", "y", "--out", "o"], 1, ["No such data-set folder", "x"]),
        (["benchmark", "--inits", "a", "--data", "x", "--seeds", "one", "--out", "o"], 2, ["--seeds", "integer"]),
        (["train", "--resume", "norun"], 1, ["Not a training run", "norun"]),
        (["train", "--sise", "tiny"], 2, ["--sise"]),
        (["eval", "norun"], 1, ["Not a training run", "norun", "no such folder"]),
        (["export"], 1, ["No training run", "edgeunip train"]),
        (["export", "norun"], 1, ["Not a training run"]),
        (["verify", "nobundle"], 1, ["Not a bundle", "nobundle"]),
        (["stream", "synthetic://lepton"], 2, ["No bundle", "edgeunip export"]),
        (["bench", "nobundle"], 1, ["Not a bundle"]),
        (["data", "check", "nowhere"], 1, ["No such data-set folder"]),
        (["data", "synth", "--out", "x", "--sensor", "leptom"], 2, ["leptom", "lepton"]),
        (["frobnicate"], 2, ["frobnicate"]),
    ],
)
def test_wrong_input_gets_one_line(
    arguments: list[str],
    code: int,
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["edgeunip", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr().err
    assert left.value.code == code, told
    assert "Traceback" not in told
    for part in parts:
        assert part in told
    ours = [line for line in told.splitlines() if line.startswith("edgeunip: ")]
    assert len(ours) == 1 or code == 2, told
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing behind"


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    for arguments in (["--debug", "verify", "nobundle"], ["verify", "nobundle", "--debug"]):
        done = edgeunip(*arguments, folder=tmp_path)
        assert done.returncode == 1
        assert "Traceback" in done.stderr and "BundleError" in done.stderr


def test_a_missing_package_names_its_extra(tmp_path: Path) -> None:
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "block")}
    words = [*COMMAND, "train", "--data", "."]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "The package torch is not installed. Run: pip install 'edgeunip[train]'" in done.stderr


@pytest.mark.parametrize(("package", "extra"), [("timm", "train"), ("openvino", "openvino"), ("onnx", "compress")])
def test_a_missing_package_is_no_unexpected_error(package: str, extra: str) -> None:
    told = explain(ModuleNotFoundError(f"No module named '{package}'", name=package))
    assert str(told) == f"The package {package} is not installed. Run: pip install 'edgeunip[{extra}]'"


def test_data_check_tells_everything_and_fails(tmp_path: Path) -> None:
    assert (
        edgeunip("data", "synth", "--out", "set", "--images", 12, "--sensor", "lepton", folder=tmp_path).returncode == 0
    )
    done = edgeunip("data", "check", "set", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "12 images, 0 defects" in done.stdout
    stem = (tmp_path / "set" / "train.txt").read_text().split()[0]
    (tmp_path / "set" / "labels" / f"{stem}.png").write_bytes(b"")
    done = edgeunip("data", "check", "set", folder=tmp_path)
    assert done.returncode == 1
    assert stem in done.stdout and "1 defects" in done.stdout


def test_the_users_three_lines(tmp_path: Path) -> None:
    """train, export --int8, eval and stream with nothing named but what the lines need."""
    small = ["steps=4", "batch=4", "height=64", "width=80", "warmup=1", "threads=1"]
    settings = [word for setting in small for word in ("--set", setting)]
    assert edgeunip("data", "synth", "--out", "data/scenes", "--images", 20, "--sensor", "lepton", folder=tmp_path)
    trained = edgeunip("train", "--size", "tiny", *settings, folder=tmp_path, timeout=300)
    assert trained.returncode == 0, trained.stderr
    travelling = edgeunip("export", "--target", "jetson-orin", "--int8", folder=tmp_path, timeout=300)
    assert travelling.returncode == 0 and "Next: edgeunip pack bundles/" in travelling.stderr, travelling.stderr
    # Whether int8 is faster depends on the processor: without a bound, the same test holds on all.
    here = ("--target", "x86-cpu", "--int8", "--min-speedup", "0")
    exported = edgeunip("export", *here, folder=tmp_path, timeout=300)
    assert exported.returncode == 0, exported.stderr
    (bundle,) = (tmp_path / "bundles").glob("*-x86-cpu-int8.bundle")
    scored = edgeunip("eval", bundle, "--json", "score.json", folder=tmp_path)
    assert scored.returncode == 0, scored.stderr
    score = json.loads((tmp_path / "score.json").read_text())
    assert set(score) == {"miou", "iou", "accuracy", "images", "runtime"}
    tested = (tmp_path / "data/scenes/test.txt").read_text().split()
    assert score["images"] == len(tested) and score["runtime"].startswith("openvino") and "person" in score["iou"]
    assert edgeunip("verify", bundle, folder=tmp_path).returncode == 0
    sinks = ["--sink", "jsonl:out.jsonl", "--sink", "video:out.mkv"]
    streamed = edgeunip("stream", "synthetic://lepton?seconds=20", *sinks, "--frames", 5, folder=tmp_path)
    assert streamed.returncode == 0, streamed.stderr
    assert "Using the newest bundle" in streamed.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    assert {"seq", "t_ns", "age_ms", "state", "classes"} <= set(lines[0])
    assert lines[0]["classes"]["ground"]["mean_c"] is None or -40 < lines[0]["classes"]["ground"]["mean_c"] < 100
    damaged = bundle / "model.bin"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    refused = edgeunip("verify", bundle, folder=tmp_path)
    assert refused.returncode == 1 and "model.bin" in refused.stderr and "SHA-256" in refused.stderr
