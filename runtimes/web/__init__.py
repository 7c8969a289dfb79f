"""The live page and its server: what a camera shows, in any browser."""
