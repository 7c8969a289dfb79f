"""Attention of a ViT, layer by layer: how much of it depends on the query, how far it looks, and how that reads."""
