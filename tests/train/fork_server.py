"""Run as a program: trains for whoever writes jobs to its standard input. See ``training.ForkServer``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import cv2
from training import MICRO, recipe, unip

from edgeunip.errors import EdgeunipError
from edgeunip.train import fit
from edgeunip.train.datasets import open_data
from edgeunip.train.loop import Loop
from edgeunip.train.pretrain import fit as pretrain
from edgeunip.train.vit import SIZES


def main() -> None:
    cv2.setNumThreads(1)  # a fork inherits no threads
    SIZES["tiny"] = MICRO
    for line in sys.stdin:
        data, out, values, number, after, again_after_s, ranks, port = json.loads(line)
        reading, writing = os.pipe()
        children = []
        for rank in range(ranks):
            if child := os.fork():
                children.append(child)
                continue
            os.close(reading)
            if ranks > 1:
                os.environ.update(as_torchrun_does(rank, ranks, port))
            run(data, Path(out), values, writing)
        os.close(writing)
        if after is not None:
            wait(reading, after)
            os.kill(children[-1], number)
        if again_after_s is not None:
            time.sleep(again_after_s)
            os.kill(children[-1], number)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        os.close(reading)
        print(*codes, flush=True)


def as_torchrun_does(rank: int, ranks: int, port: int) -> dict[str, str]:
    """The environment torchrun gives to a rank."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    rest = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "False"}
    return rest | {key: str(value) for key, value in place.items()}


def run(data: str, out: Path, values: dict[str, Any] | None, writing: int) -> None:
    """Train in the child; a byte goes to the parent after every step of rank 0."""
    os.dup2(2, 1)
    after = Loop.after

    def counted(loop: Loop, done: int) -> None:
        if os.environ.get("RANK", "0") == "0":
            os.write(writing, b".")
        after(loop, done)

    Loop.after = counted  # type: ignore[method-assign]
    code = 0
    try:
        start(data, out, values or {})
    except SystemExit as error:
        code = int(error.code or 0)
    except KeyboardInterrupt:
        code = 130
    except EdgeunipError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)


def start(data: str, out: Path, values: dict[str, Any]) -> None:
    """Start or resume a fine-tuning; or, with a teacher among the values, a pre-training."""
    going_on = (out / "recipe.toml").exists()
    if "teacher" in values:
        pretrain.resume(out, say=print) if going_on else pretrain.pretrain(unip(**values), data, out, say=print)
    elif going_on:
        fit.resume(out)
    else:
        fit.train(recipe(**values), open_data(data), out)


def wait(reading: int, after: int | float) -> None:
    """Wait for so many steps (int) or seconds (float), or for the end of the child."""
    if isinstance(after, float):
        time.sleep(after)
        return
    for _ in range(after):
        if not os.read(reading, 1):
            return


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
