"""Thermal-infrared segmentation on embedded cameras: train, compress, pack one bundle, stream it."""

import sys

__version__ = "0.1.0"

# Merely importing OpenVINO reports to Google Analytics, from a forked child that can hold up the end of the process.
# A device tells nobody anything: without this package, OpenVINO and NNCF send nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
