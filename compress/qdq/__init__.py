"""Explicit symmetric int8 in an ONNX graph: calibration, Q/DQ pairs, SmoothQuant, and the proof of TensorRT's rules.

Written on ``onnx`` alone, because modelopt pins another onnx, and because ONNX Runtime's quantiser keeps every
activation of every picture in memory and quantises more than the layers that gain by it.
"""
