"""One page on what this device can do: each finding with what to do about it."""
