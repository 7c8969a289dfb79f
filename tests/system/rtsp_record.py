"""An RTSP server that takes what is pushed to /PATH and writes it to FOLDER/PATH.ts. Run by the distribution's Python.

rtsp_record.py PORT FOLDER PATH[,PATH] [USER:PASSWORD]
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main(port, folder, paths, login=None):
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
    if login is not None:
        server.set_auth(basic(login))
    for path in paths.split(","):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        file = f"{folder}/{path.replace('/', '_')}.ts"
        factory.set_launch(
            f"( rtph264depay name=depay0 ! h264parse ! mpegtsmux ! filesink buffer-mode=2 location={file} )"
        )
        if login is not None:
            factory.set_permissions(permissions())
        server.get_mount_points().add_factory(f"/{path}", factory)
    server.attach(None)
    GLib.MainLoop().run()


def basic(login):
    user, password = login.split(":")
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    return auth


def permissions():
    allowed = GstRtspServer.RTSPPermissions()
    allowed.add_permission_for_role("user", "media.factory.access", True)
    allowed.add_permission_for_role("user", "media.factory.construct", True)
    return allowed


main(*sys.argv[1:])
