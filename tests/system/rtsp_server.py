"""A live RTSP camera at rtsp://127.0.0.1:PORT/thermal: a moving ball. Run by the distribution's Python.

rtsp_server.py PORT [USER:PASSWORD]
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

LAUNCH = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! rtph264pay name=pay0 pt=96 )"
)


def main(port, login=None):
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    factory.set_launch(LAUNCH)
    if login is not None:
        server.set_auth(auth(login))
        permissions = GstRtspServer.RTSPPermissions()
        for right in ("access", "construct"):
            permissions.add_permission_for_role("user", f"media.factory.{right}", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/thermal", factory)
    server.attach(None)
    GLib.MainLoop().run()


def auth(login):
    user, password = login.split(":")
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    made = GstRtspServer.RTSPAuth()
    made.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    return made


main(*sys.argv[1:])
