"""Running a bundle: engines behind one protocol, the camera-stream loop, and the places its results go.

Nothing here imports torch. Each engine's package is imported by one module only, and that module only when it is asked
for, so ``import edgeunip.runtimes`` is cheap and works on a device with nothing but the core installed.
"""
