"""The masked auto-encoder: its loss against the authors' numbers, what it sees and what it does not."""

from __future__ import annotations

import golden
import pytest
import torch

from edgeunip.train.pretrain.mae import MaskedAutoencoder, patches, reconstruction_loss
from edgeunip.train.pretrain.student import new_vit
from edgeunip.train.vit import ViTSize

SIZE = ViTSize(32, 2, 2, 2)


def model() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(new_vit(SIZE, (4, 4)), ViTSize(16, 1, 2, 2), (4, 4))


def test_targets_and_losses_equal_the_reference() -> None:
    data = {key: torch.from_numpy(value) for key, value in golden.load("mae_loss").items()}
    assert torch.equal(patches(data["images"]), data["target"])
    for normalise, name in ((False, "loss_raw"), (True, "loss_normalised")):
        ours = reconstruction_loss(data["pred"], data["target"], data["mask"], normalise=normalise)
        torch.testing.assert_close(ours, data[name], rtol=1e-5, atol=0)


def test_the_order_hides_what_the_reference_hides() -> None:
    data = {key: torch.from_numpy(value) for key, value in golden.load("mae_loss").items()}
    order = data["noise"].argsort(dim=1)
    assert torch.equal(order[:, : int(16 * 0.25)], data["ids_keep"])
    assert torch.equal(order.argsort(dim=1), data["ids_restore"])


def test_what_is_hidden_is_not_seen() -> None:
    """The painted patches do not change with hidden pixels; with seen ones they do."""
    mae, images = model().eval(), torch.randn(1, 1, 64, 64)
    order = torch.arange(16).unsqueeze(0)  # the first row of patches is seen
    hidden, seen = images.clone(), images.clone()
    hidden[..., 16:, :] += 1
    seen[..., :16, :] += 1
    encoded = [mae._decode(mae._encode(view, order[:, :4]), order) for view in (images, hidden, seen)]
    assert torch.equal(encoded[0], encoded[1])
    assert not torch.allclose(encoded[0], encoded[2])


def test_patches_come_back_to_their_place() -> None:
    """A decoder that passes on what it gets shows each encoded patch at its own position."""
    mae = model().eval()
    mae.decoder_blocks = torch.nn.ModuleList()
    mae.decoder_position.zero_()
    images, order = torch.randn(2, 1, 64, 64), torch.stack([torch.randperm(16), torch.randperm(16)])
    encoded = mae._encode(images, order[:, :4])
    painted = mae._decode(encoded, order)
    expected = mae.predict(mae.decoder_norm(mae.decoder_embed(encoded)))[:, 1:]
    for image in range(2):
        torch.testing.assert_close(painted[image, order[image, :4]], expected[image])


def test_it_learns() -> None:
    mae = model()
    images = torch.zeros(4, 1, 64, 64) + torch.linspace(-1, 1, 64)
    optimizer = torch.optim.AdamW(mae.parameters(), lr=3e-3)
    order = torch.stack([torch.randperm(16) for _ in range(4)])
    first = float(mae.loss(images, order).detach())
    for _ in range(60):
        optimizer.zero_grad()
        mae(images).backward()
        optimizer.step()
    assert float(mae.loss(images, order).detach()) < 0.7 * first


@pytest.mark.parametrize("normalise", [True, False])
def test_only_hidden_patches_count(normalise: bool) -> None:
    painted, target = torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    hidden = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    other = painted.clone()
    other[0, 1:] = 9
    assert reconstruction_loss(painted, target, hidden, normalise=normalise) == reconstruction_loss(
        other, target, hidden, normalise=normalise
    )
