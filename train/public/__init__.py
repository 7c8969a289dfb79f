"""Weights others published: reading their files, fetching them from a hub, and our own files of encoders."""
