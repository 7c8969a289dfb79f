"""The names of layers: an exported graph's nodes carry the path of the module they come from."""

from __future__ import annotations


def layer_name(node: str) -> str:
    """Return the module a node comes from; empty for what belongs to none.

    ``/model/backbone/blocks.0/attn/qkv/MatMul`` is ``backbone.blocks.0.attn.qkv``. The exporter repeats the parents of
    nested containers: ``/model/head/fuse/fuse.0/fuse.0.1/Conv`` is ``head.fuse.0.1``.
    """
    parts: list[str] = []
    for part in node.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts[1:] if parts[:1] == ["model"] else parts)
