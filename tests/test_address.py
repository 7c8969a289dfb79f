from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.address import redact


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://10.0.0.4:554/live", "rtsp://10.0.0.4:554/live"),
        ("rtsp://u:CANARY@10.0.0.4/live", "rtsp://***@10.0.0.4/live"),
        ("RTSPS://u:CAN@ARY@cam/live", "RTSPS://***@cam/live"),
        ("rtsp://u:CAN/ARY@cam/live", "rtsp://***@cam/live"),
        ("rtsp://u:CAN?ARY@cam/live", "rtsp://***@cam/live"),
        ("rtsp://cam/live?token=CANARY", "rtsp://cam/live?***"),
        ("rtsp://cam/live#CANARY", "rtsp://cam/live?***"),
        ("rtsp://cam/user=admin&password=CANARY&channel=1.sdp", "rtsp://cam/user=admin&password=***&channel=1.sdp"),
        ("rtsp://cam/user=admin_password=CANARY_channel=1.sdp", "rtsp://cam/user=admin_password=***"),
        ("rtsp:/u:CANARY@cam/live", "rtsp:/***@cam/live"),
        ("u:CANARY@cam/live", "***@cam/live"),
        ("/data/cow@home/a.mkv", "/data/cow@home/a.mkv"),
        ("C?.png", "C?.png"),
    ],
)
def test_what_is_shown(source: str, shown: str) -> None:
    assert redact(source) == shown


@given(st.text(min_size=1, max_size=12), st.text(max_size=8), st.sampled_from(["rtsp://", "rtsps://", "http://"]))
def test_no_password_survives(password: str, user: str, scheme: str) -> None:
    secret = f"<{password}>"
    assert secret not in redact(f"{scheme}{user}:{secret}@camera/live?token={secret}")
