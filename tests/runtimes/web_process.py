"""A page in a process of its own, to be attacked: ``python web_process.py limited|unlimited``. Prints its port.

It writes a noisy picture ten times a second until its standard input ends, then prints how many.
"""

import sys
import threading
import time
from dataclasses import replace

from live_results import CLASSES, noisy

from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.web import server, stream
from edgeunip.runtimes.web.sink import WebSink

RATE_HZ = 10


def limit(limited):
    """Shorten the time limits, so that a test takes seconds; or take every limit away."""
    server.HEADER_TIMEOUT_S = server.WRITE_TIMEOUT_S = 1.0 if limited else 1e6
    if not limited:
        stream.MAX_STREAMS = server.MAX_CONNECTIONS = 10**6


def main(limited):
    limit(limited)
    sink = WebSink(0, Setting(CLASSES))
    results = [noisy(seq, height=600, width=800) for seq in range(2)]
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    print(sink.url, flush=True)
    seq, started = 0, time.monotonic()
    while not ended.wait(max(0.0, started + seq / RATE_HZ - time.monotonic())):
        result = results[seq % 2]
        now = time.monotonic_ns()
        sink.write(replace(result, frame=replace(result.frame, seq=seq, t_ns=now), done_ns=now))
        seq += 1
    sink.close()
    print(seq)


main(sys.argv[1] == "limited")
