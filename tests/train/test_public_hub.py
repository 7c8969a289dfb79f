"""Fetching from a hub: a real one on the loopback interface, and a cache without any."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hub_server
import public_checkpoints as made
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants

from edgeunip.errors import HubError, StorageError, UsageError, WeightsError
from edgeunip.train.encoder import Encoder
from edgeunip.train.public import files, hub
from edgeunip.train.public.open import open_encoder

CARD = b"---\nlicense: cc-by-nc-4.0\n---\n# Weights\n"
REPO, FILE = "someone/vit", "weights/mae.pth"


@pytest.fixture(scope="module")
def server() -> Iterator[hub_server.Hub]:
    server = hub_server.Hub()
    yield server
    server.close()


@pytest.fixture
def online(server: hub_server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> hub_server.Hub:
    """The hub with one repository, and an empty cache, as HF_ENDPOINT and HF_HOME would set them at the start."""
    server.repos = {REPO: {FILE: bytes(range(256)) * 400, "README.md": CARD}}
    server.cut, server.gated, server.status, server.answers = set(), set(), 0, []
    point_to(server.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return server


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        point_to(f"http://127.0.0.1:{probe.getsockname()[1]}", monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between its attempts


def opened(name: str, said: list[str] | None = None, *, heads: int = 0) -> Encoder:
    return open_encoder(name, heads=heads, say=(said if said is not None else []).append)


def failure(repo: str = REPO, file: str = FILE) -> str:
    with pytest.raises(HubError) as caught:
        hub.fetch(repo, file)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("Cannot fetch from the hub: ")
    return message


def pth(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_a_file_is_fetched_once_with_its_commit_and_licence(online: hub_server.Hub) -> None:
    found = hub.fetch(REPO, FILE)
    assert found.path.read_bytes() == online.repos[REPO][FILE]
    assert (found.repo, found.commit, found.licence) == (REPO, hub_server.COMMIT, "cc-by-nc-4.0")
    assert hub.fetch(REPO, FILE) == found
    assert online.transfers(FILE) == [None], "the second time it comes from the cache"


def test_an_interrupted_transfer_goes_on_where_it_stopped(
    online: hub_server.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 10)  # of 10 MiB: what came of a chunk is lost
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    online.cut = {FILE}
    assert hub.fetch(REPO, FILE).path.read_bytes() == online.repos[REPO][FILE]
    first, second = online.transfers(FILE)
    assert first is None and second is not None and re.fullmatch(r"bytes=[1-9]\d*-", second)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (b"---\nlicense: other\nlicense_name: meta-terms\n---\n", "meta-terms"),
        (b"---\nlicense: other\n---\n", None),
        (b"---\ntags: [x]\n---\n", None),
        (b"# No header\n", None),
        (None, None),
    ],
)
def test_the_licence_as_the_card_states_it(online: hub_server.Hub, card: bytes | None, licence: str | None) -> None:
    online.repos[REPO] = {FILE: b"x"} | ({"README.md": card} if card is not None else {})
    assert hub.fetch(REPO, FILE).licence == licence


@pytest.mark.parametrize("card", [{"README.md": CARD}, {}])
def test_what_was_fetched_is_there_without_a_connection(
    online: hub_server.Hub, card: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the hub asked again where there is one: finding out that it is out of reach takes half a minute."""
    online.repos[REPO] = {FILE: b"x", **card}
    found = hub.fetch(REPO, FILE)
    asked = len(online.answers)
    assert hub.fetch(REPO, FILE) == found
    assert hub.cached(REPO) == [*card, FILE]
    assert len(online.answers) == asked
    cut_off(monkeypatch)
    assert hub.files(REPO) == [*card, FILE]


@pytest.mark.parametrize(("cut", "told"), [(cut_off, "HF_HUB_OFFLINE is set"), (unreachable, "no connection to http")])
def test_without_a_connection_the_file_to_fetch_by_hand_is_named(
    online: hub_server.Hub, cut: object, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(cut)
    cut(monkeypatch)
    message = failure()
    assert told in message and f"{REPO}, {FILE}" in message
    assert f"Fetch {constants.ENDPOINT}/{REPO}/resolve/main/{FILE} by hand" in message
    assert "give the path of what you fetched instead" in message
    with pytest.raises(HubError, match=f"Fetch the files of {constants.ENDPOINT}/{REPO} by hand"):
        hub.files(REPO)
    with pytest.raises(HubError, match=f"the files of {constants.ENDPOINT}/datasets/{REPO} by hand"):
        hub.dataset(REPO, lambda text: None)


def test_no_such_repository_file_or_access(online: hub_server.Hub) -> None:
    assert "no such repository, or a private one" in failure("nobody/nothing")
    message = failure(file="weights/mea.pth")
    assert "no such file in the repository" in message and f"Did you mean {FILE}?" in message
    online.gated = {REPO}
    message = failure()
    assert "grants access on request" in message and f"Accept the conditions at {online.url}/{REPO}" in message
    online.status = 403
    assert "the hub answers 403" in failure()


@pytest.mark.parametrize("name", ["hf:a/b/c:x.pth", "hf:no spaces/x:x.pth", "hf:", "hf:a/b:../../x.pth"])
def test_what_is_no_name_of_a_repository(online: hub_server.Hub, name: str) -> None:
    with pytest.raises(HubError, match=r"No name of a repository and file.*hf:OWNER/NAME:FILE"):
        opened(name)


def test_a_full_disk_is_told_as_such() -> None:
    told = hub._told(OSError(errno.ENOSPC, "No space left on device"), REPO, FILE)
    assert isinstance(told, StorageError) and "Free some space" in str(told)


def test_a_data_set_is_fetched_whole_and_its_licence_shown(
    online: hub_server.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.repos["datasets/someone/mix"] = {
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "infpre/a/thermal/1.jpg": b"jpg",
    }
    said: list[str] = []
    found = hub.dataset("someone/mix", said.append)
    assert (found.path / "infpre/a/thermal/1.jpg").read_bytes() == b"jpg"
    assert (found.licence, found.commit) == ("apache-2.0", hub_server.COMMIT)
    assert said == [f"someone/mix: licence apache-2.0; fetching into {constants.HF_HUB_CACHE}"]
    cut_off(monkeypatch)
    assert hub.dataset("someone/mix", said.append) == found


def test_the_environment_names_hub_and_cache(online: hub_server.Hub, tmp_path: Path) -> None:
    code = f"from edgeunip.train.public import hub; print(hub.fetch({REPO!r}, {FILE!r}).path)"
    home = {**os.environ, "HF_ENDPOINT": online.url, "HF_HOME": str(tmp_path / "home")}
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        asked = len(online.answers)
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env={**home, **more}, capture_output=True, text=True, check=True)
        assert Path(done.stdout.strip()).is_relative_to(tmp_path / "home")
        assert (len(online.answers) > asked) is (not more)


# Encoders by name


def test_an_encoder_from_a_hub(online: hub_server.Hub) -> None:
    vit, content = made.ibot()
    online.repos[REPO][FILE] = pth(content)
    said: list[str] = []
    encoder = opened(f"hf:{REPO}:{FILE}", said, heads=4)
    torch.testing.assert_close(made.our_tokens(encoder.vit), made.tokens(vit), atol=1e-6, rtol=0)
    origin = encoder.origin
    assert (origin.kind, origin.licence) == ("iBOT", "cc-by-nc-4.0")
    assert origin.file is not None and origin.sha256 == files.sha256(Path(origin.file))
    assert f"snapshots/{hub_server.COMMIT}" in origin.file
    assert said == [f"Encoder hf:{REPO}:{FILE}: iBOT, licence cc-by-nc-4.0, 1 tensors beside the encoder left out"]
    assert opened(f"hf:{REPO}", heads=4).origin.file == origin.file, "the only checkpoint needs no name"


def test_of_several_checkpoints_one_must_be_named(online: hub_server.Hub) -> None:
    online.repos[REPO] = {"a.pth": b"", "b.safetensors": b"", "README.md": CARD}
    with pytest.raises(HubError, match=rf"does not hold one checkpoint.*a\.pth, b\.safetensors.*hf:{REPO}:FILE"):
        opened(f"hf:{REPO}")
    online.repos[REPO] = {"README.md": CARD}
    with pytest.raises(HubError, match="it holds none"):
        opened(f"hf:{REPO}")


UNIP = {f"{teacher}_distill_unip_{size}_100ep_infmix.pth"
        for teacher in ("mae_large_layer18", "ibot_large_layer21") for size in ("tiny", "small")}  # fmt: skip


def publish_unip(online: hub_server.Hub) -> None:
    vit = made.sincos_source()
    names = {name: pth({"model": vit.state_dict(), "args": made.Namespace(last_heads=8)}) for name in UNIP}
    online.repos["casiatao/UNIP"] = {**names, "README.md": b"# UNIP\n"}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("unip-tiny", "mae_large_layer18_distill_unip_tiny_100ep_infmix.pth"),
        ("unip-small", "mae_large_layer18_distill_unip_small_100ep_infmix.pth"),
        ("unip-small:ibot", "ibot_large_layer21_distill_unip_small_100ep_infmix.pth"),
    ],
)
def test_the_authors_unip_by_size_and_teacher(
    online: hub_server.Hub, name: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_unip(online)
    encoder = opened(name, heads=4)
    assert encoder.heads == (4, 8)
    assert encoder.origin.file is not None and Path(encoder.origin.file).name == file
    assert (encoder.origin.kind, encoder.origin.licence) == ("UNIP", "CC-BY-NC-4.0"), "the card states none"
    cut_off(monkeypatch)
    assert opened(name, heads=4).origin == encoder.origin, "from the cache, without a connection"


def test_unip_that_is_not_published(online: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_unip(online)
    with pytest.raises(HubError, match=r"has no UNIP-base of mae.*unip_small_100ep"):
        opened("unip-base")
    with pytest.raises(UsageError, match=r"UNIP has no such teacher: clip.*mae, ibot, dino"):
        opened("unip-small:clip")
    cut_off(monkeypatch)
    with pytest.raises(HubError, match=r"Fetch mae_large_\*unip_base_\*\.pth of http.*/casiatao/UNIP by hand"):
        opened("unip-base")


def test_a_timm_model_with_its_published_weights(online: hub_server.Hub) -> None:
    torch.manual_seed(5)
    vit = timm.create_model("test_vit", pretrained=False)
    data = safetensors.torch.save(vit.state_dict())
    online.repos["timm/test_vit.r160_in1k"] = {"model.safetensors": data}
    encoder = opened("test_vit.r160_in1k")
    assert encoder.origin.kind == "timm" and encoder.origin.licence == "apache-2.0"
    assert encoder.heads == (2,) * 6
    assert torch.equal(encoder.vit.state_dict()["blocks.5.mlp.fc2.weight"], vit.state_dict()["blocks.5.mlp.fc2.weight"])
    assert "head.weight" not in encoder.vit.state_dict()
    by_file = opened(str(encoder.origin.file), heads=2)
    for name, value in encoder.vit.state_dict().items():
        assert torch.equal(by_file.vit.state_dict()[name], value)


def test_a_timm_model_without_a_connection(online: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(monkeypatch)
    with pytest.raises(HubError) as caught:
        opened("vit_large_patch16_224.mae")
    assert "timm/vit_large_patch16_224.mae/resolve/main/model.safetensors by hand" in str(caught.value)


def test_negative_control_timm_weights_that_are_not_whole(online: hub_server.Hub) -> None:
    state = timm.create_model("test_vit", pretrained=False).state_dict()
    del state["blocks.3.norm1.weight"]
    online.repos["timm/test_vit.r160_in1k"] = {"model.safetensors": safetensors.torch.save(state)}
    with pytest.raises(WeightsError, match=r"timm cannot load.*blocks\.3\.norm1\.weight"):
        opened("test_vit.r160_in1k")
