"""What needs no server."""

import pytest
from live_results import CLASSES, made

from edgeunip.errors import SinkError, UsageError
from edgeunip.runtimes.sinks import Setting, open_sink

CANARY = "c4nary-Secret"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rtsp:host/path", r"written rtsp://HOST\[:PORT\]/PATH: rtsp:host/path"),
        ("rtsp://host", r"written rtsp://HOST\[:PORT\]/PATH"),
        ("rtsp://host:port/path", r"written rtsp://HOST\[:PORT\]/PATH"),
        ("rtsp://host/path?usr=me", r"no option usr\. Did you mean user"),
    ],
)
def test_grammar(text, message):
    with pytest.raises(UsageError, match=message):
        open_sink(text, Setting(CLASSES))


@pytest.mark.parametrize("text", [f"rtsp://me:{CANARY}@host/path", f"rtsp://host/path?password={CANARY}"])
def test_a_password_on_the_command_line_is_refused_and_not_repeated(text):
    with pytest.raises(UsageError, match=r"password_file=FILE, or set EDGEUNIP_RTSP_OUT_PASSWORD\.$") as told:
        open_sink(text, Setting(CLASSES))
    assert CANARY not in str(told.value)


def test_a_password_needs_a_user(monkeypatch):
    monkeypatch.setenv("EDGEUNIP_RTSP_OUT_PASSWORD", CANARY)
    with pytest.raises(UsageError, match=r"password of the rtsp sink needs a user\. Write \?user=NAME"):
        open_sink("rtsp://host/path", Setting(CLASSES))
    open_sink("rtsp://host/path?user=me", Setting(CLASSES)).close()


def test_several_cameras_need_several_paths():
    with pytest.raises(UsageError, match=r"cannot share one RTSP path: rtsp://host/path\. Write \{camera\}"):
        open_sink("rtsp://host/path", Setting(CLASSES, ("a", "b")))


def test_a_server_that_is_not_there_is_told_by_the_first_write():
    sink = open_sink("rtsp://127.0.0.1:1/path", Setting(CLASSES))
    with pytest.raises(SinkError, match=r"cannot be pushed to: rtsp://127\.0\.0\.1:1/path \(Connection refused\)$"):
        sink.write(made(0))
    sink.close()
    sink.close()
