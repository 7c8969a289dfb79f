"""``python -m edgeunip``, which is also what torchrun starts."""

from edgeunip.cli import main

if __name__ == "__main__":  # a loader's worker process imports this file too
    main()
