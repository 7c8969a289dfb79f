"""Sources of thermal frames: V4L2 and RTSP cameras, video files, image folders, a synthetic camera.

:func:`edgeunip.devices.open.open_camera` is the way in; :mod:`edgeunip.devices.profiles` knows the camera models.
"""
