"""The synthetic hosts, one module a family, out of the blocks in `asking`, `linux`, `cards` and `driver`."""

from __future__ import annotations

from typing import Final

from machines.asking import Machines
from machines.clouds import MACHINES as CLOUDS
from machines.datacenter import MACHINES as DATACENTER
from machines.drivers import MACHINES as DRIVERS
from machines.geforce import MACHINES as GEFORCE
from machines.sandboxes import MACHINES as SANDBOXES
from machines.wsl2 import MACHINES as WSL2

SYNTHETIC: Final[Machines] = {
    f"synthetic-{name}": machine
    for family in (WSL2, DRIVERS, GEFORCE, DATACENTER, CLOUDS, SANDBOXES)
    for name, machine in family.items()
}
