"""Does this bundle do here what it did where it was exported?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeunip import trust
from edgeunip.bundle import Bundle, load
from edgeunip.errors import BundleError
from edgeunip.protocols import Runtime
from edgeunip.runtimes.open import open_to_judge
from edgeunip.runtimes.segment import decide
from edgeunip.thermal import fit


@dataclass(frozen=True)
class Verification:
    """What the golden sample showed.

    Attributes:
        bundle: its folder.
        runtime: what ran it, for people.
        agreement: share of pixels, 0..1, equal to the stored class map, one number a golden frame.
        required: the share the manifest asks of every frame.
        signature: what this device makes of the bundle's signature.
    """

    bundle: Path
    runtime: str
    agreement: tuple[float, ...]
    required: float
    signature: trust.State


def verify(path: Path) -> Verification:
    """Check every file of the bundle at ``path``, then run its golden sample on this machine.

    Raises:
        BundleError: a file is damaged, a golden frame agrees less than the manifest asks for, or this device's trust
            refuses the bundle.
        InferenceError: the model does not run here.
    """
    bundle = load(path)
    runtime = open_to_judge(bundle)
    try:
        agreement = golden_agreement(bundle, runtime)
    finally:
        runtime.close()
    required = bundle.manifest.golden_agreement
    if min(agreement) < required:
        raise BundleError(
            f"The model does not give its golden class maps here: agreement {min(agreement):.4f}, "
            f"{required:.4f} asked for",
            where=path,
            remedy="Export the run again; if that changes nothing, report this machine's runtime.",
        )
    return Verification(path, runtime.name, agreement, required, trust.inspect(bundle.manifest, bundle.signature()))


def golden_agreement(bundle: Bundle, runtime: Runtime) -> tuple[float, ...]:
    """Return the share of pixels, 0..1, on which ``runtime`` and each stored golden class map agree."""
    manifest, golden = bundle.manifest, bundle.golden()
    shares = []
    for counts, stored in zip(golden.counts, golden.class_maps, strict=True):
        picture = fit(manifest.agc.picture(counts, manifest.radiometry), manifest.height, manifest.width)
        shares.append(float(np.mean(decide(runtime(picture)) == stored)))
    return tuple(shares)
