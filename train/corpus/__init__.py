"""Unlabelled images to pre-train on: an index of many folders, its shards, and the batches read from them."""
