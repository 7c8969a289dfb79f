"""Thermal-infrared segmentation on embedded cameras: train, compress, pack one bundle, stream it."""

__version__ = "0.1.0"
