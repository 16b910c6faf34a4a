"""Says where it is, then takes memory until the kernel ends it."""

from __future__ import annotations

import json
from dataclasses import asdict

from shardfit.engines.vitals import own_place

if __name__ == "__main__":
    print(json.dumps(asdict(own_place("here"))), flush=True)
    taken: list[bytearray] = []
    while True:
        taken.append(bytearray(b"x" * 2**24))
