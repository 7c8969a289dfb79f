"""How often one client may do a thing."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable

_MAX_CLIENTS = 1024


class Throttle:
    """A burst of ``burst`` times, refilled by one every ``every_s`` seconds, for each client on its own.

    A client is one number: the time at which its burst will be whole again. The clients seen longest ago are forgotten
    first, so that many of them cost no memory.
    """

    def __init__(self, burst: int, every_s: float) -> None:
        self._every_s = every_s
        self._slack_s = (burst - 1) * every_s
        self._whole_at: OrderedDict[Hashable, float] = OrderedDict()

    def wait_s(self, client: Hashable) -> float:
        """Return how long ``client`` has to wait for its next time; 0 for not at all."""
        return max(0.0, self._whole_at.get(client, 0.0) - self._slack_s - time.monotonic())

    def count(self, client: Hashable) -> None:
        """Note that ``client`` has done it."""
        self._whole_at[client] = max(self._whole_at.pop(client, 0.0), time.monotonic()) + self._every_s
        if len(self._whole_at) > _MAX_CLIENTS:
            self._whole_at.popitem(last=False)
