import sys
from pathlib import Path

# The results made by hand, which the runtimes' own tests use too.
sys.path.append(str(Path(__file__).parents[1] / "runtimes"))
