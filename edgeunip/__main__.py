"""``python -m edgeunip``, which is also what torchrun starts."""

from edgeunip.cli import main

main()
