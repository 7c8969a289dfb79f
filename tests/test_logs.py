"""One line a record, no credential, no flood; also for what nobody caught."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from edgeunip import redaction
from edgeunip.logs import Line, RateLimit

SECRET = "cAnArY-7f3"


def record(message: str, *values: object, name: str = "edgeunip.x", level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, values, None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_hundred_thousand_faults_are_few_lines_and_none_is_forgotten(clock: Clock) -> None:
    limit, said, left_out = RateLimit(clock=clock), 0, 0
    for number in range(100_000):
        clock.now = number / 1000  # 100 s
        one = record("Camera %s failed: frame %d", "yard", number)
        if limit.filter(one):
            said += 1
            left_out += one.left_out  # type: ignore[attr-defined]
    assert said == 10
    (rest,) = limit.left_out()
    assert rest == f"{100_000 - said - left_out} more, the last: Camera yard failed: frame 99999"


def test_negative_control_without_the_limit_all_of_them_are_lines(clock: Clock) -> None:
    limit = RateLimit(period_s=0, clock=clock)
    assert sum(limit.filter(record("Camera %s failed", "yard")) for _ in range(1000)) == 1000


def test_other_values_are_another_line_up_to_five(clock: Clock) -> None:
    limit = RateLimit(clock=clock)
    shown = [name for name in "abcdefghij" if limit.filter(record("The sink %s failed", name))]
    assert shown == list("abcde")
    assert limit.filter(record("Something else"))
    assert limit.filter(record("The sink %s failed", "a", name="another.logger"))


def test_memory_stays_bounded(clock: Clock) -> None:
    limit = RateLimit(clock=clock)
    for number in range(5000):
        limit.filter(record("x" * (number + 1)))
    assert len(limit._kinds) == 1000


def test_a_line_is_one_line_and_shows_control_characters() -> None:
    assert Line().format(record("a\nb\t%s", "\x1b[31m")) == "edgeunip: error: a b \\x1b[31m"
    assert len(Line().format(record("x" * 10_000))) == 4000
    assert Line().format(record("50 % of %s %d", "x")).startswith("edgeunip: error: 50 % of %s %d (")
    assert Line(journal=True).format(record("a", level=logging.WARNING)) == "<4>edgeunip: warning: a"


def test_a_line_hides_what_the_exception_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_kept", [])
    redaction.keep_secret(SECRET)
    try:
        try:
            raise ConnectionRefusedError(111, "refused", f"rtsp://me:pass@host/{SECRET}")
        except OSError as cause:
            raise ValueError(f"got {SECRET}") from cause
    except ValueError:
        one = record("It broke: %s", SECRET)
        one.exc_info = sys.exc_info()
    for line in (Line(), Line(debug=True)):
        text = line.format(one)
        assert SECRET not in text and "pass" not in text
        assert "ValueError: got ***" in text
    assert "\n" not in Line().format(one)
    assert "ConnectionRefusedError" in Line(debug=True).format(one)


def run(code: str, *, debug: bool = False) -> subprocess.CompletedProcess[str]:
    start = f"import logging, sys, threading\nfrom edgeunip import logs, redaction\nlogs.set_up(debug={debug})\n"
    words = [sys.executable, "-c", start + f"redaction.keep_secret({SECRET!r})\n" + textwrap.dedent(code)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


LEAKS: dict[str, str] = {
    "uncaught": f"raise RuntimeError('{SECRET}')",
    "in a thread": f"""
        def work():
            raise RuntimeError('{SECRET}')
        one = threading.Thread(target=work, name='capture')
        one.start()
        one.join()
    """,
    "while freed": f"""
        class One:
            def __del__(self):
                raise RuntimeError('{SECRET}')
        One()
    """,
    "a warning": f"import warnings; warnings.warn('{SECRET}')",
    "another's logger": f"logging.getLogger('uvicorn.error').error('%s', '{SECRET}')",
    "a template that does not fit": f"logging.getLogger('x').error('%d %d', '{SECRET}')",
    "a value that cannot be shown": f"""
        class Bad:
            def __str__(self):
                raise RuntimeError('{SECRET}')
        logging.getLogger('x').error('%s', Bad())
    """,
}


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("leak", LEAKS)
def test_nothing_leaks_by_any_way(leak: str, debug: bool) -> None:
    done = run(LEAKS[leak], debug=debug)
    assert SECRET not in done.stdout + done.stderr
    assert "edgeunip: " in done.stderr, done.stderr
    if not debug:
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_negative_control_python_itself_would_leak() -> None:
    done = subprocess.run([sys.executable, "-c", LEAKS["uncaught"]], capture_output=True, text=True, timeout=60)
    assert SECRET in done.stderr


def test_what_was_left_out_is_told_at_the_end() -> None:
    done = run("for number in range(100_000):\n    logging.getLogger('x').error('Frame %d is damaged', number)")
    assert done.stderr.splitlines() == [
        "edgeunip: error: Frame 0 is damaged",
        "edgeunip: 99999 more, the last: Frame 99999 is damaged",
    ]


def test_what_is_shown() -> None:
    done = run("logging.getLogger('edgeunip.x').info('ours'); logging.getLogger('uvicorn').info('theirs')")
    assert done.stderr == "edgeunip: ours\n"


def test_standard_error_may_be_gone() -> None:
    code = "from edgeunip import logs; logs.set_up(); import logging; logging.getLogger().error('a'); print('on')"
    done = subprocess.run(["sh", "-c", f'exec "{sys.executable}" -c "{code}" 2>&-'], capture_output=True, text=True)
    assert done.stdout == "on\n"


def test_ffmpeg_prints_no_address(free_port: Callable[[], int]) -> None:
    """PyAV keeps FFmpeg's log to itself, also when Python ends, and its exception, whose text holds the address, is
    shown without what is secret."""
    code = f"""
        import av
        try:
            av.open('rtsp://me:{SECRET}@127.0.0.1:{free_port()}/x?token={SECRET}', timeout=2)
        except av.FFmpegError as error:
            assert '{SECRET}' in str(error)
            logging.getLogger('x').exception('It failed')
    """
    for debug in (False, True):
        done = run(code, debug=debug)
        assert "It failed" in done.stderr and SECRET not in done.stderr + done.stdout


@pytest.fixture
def free_port() -> Callable[[], int]:
    import socket

    def find() -> int:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return int(one.getsockname()[1])

    return find
