"""
One replica of the model per device, each in a process of its own: a batch goes to whichever replica is free.

Batches are made before they are given out, so that what is computed together, and with it every result, does not depend
on how many replicas there are.
"""

import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing import connection
from typing import Any

import torch
from torch import multiprocessing

from mmie.model import choose_device

Start = Callable[[str], AbstractContextManager[Callable[[Any], Any]]]
"""
Makes a replica on a device: inside the block it is a function from an item to its result. It runs in the replica's
process and so must be picklable: a function of a module, or a `functools.partial` of one.
"""
GRACE = 10
"""Seconds that a replica has to end when it is told to."""


def devices_of(device: str, replicas: int) -> list[str]:
    """
    A device for each replica, from config `model.device`: as many GPUs, or the CPU as many times.

    Raises ValueError when there are not as many GPUs, or the config names one.
    """
    device = choose_device(device)
    if replicas == 1:
        return [device]
    if device == "cpu":
        return [device] * replicas
    found = torch.cuda.device_count()
    if device != "cuda" or replicas > found:
        raise ValueError(
            f"config `resources.replicas: {replicas}` needs as many CUDA devices and `model.device: cuda`; here the "
            f"device is {device} and torch sees {found}. Lower it, or ask for more GPUs."
        )
    return [f"cuda:{i}" for i in range(replicas)]


class Replicas:
    """
    Replicas that run while the block lasts; none outlives it, nor this process, however that ends.

    The first error of a replica ends them all: `map` raises ValueError with its message when it is a ValueError or an
    OSError, or when its process was killed, and RuntimeError with its traceback otherwise.
    """

    def __init__(self, devices: Sequence[str], start: Start) -> None:
        self._devices, self._start = list(devices), start

    def __enter__(self) -> "Replicas":
        pipes = [multiprocessing.Pipe() for _ in self._devices]
        self._ends, theirs = ([pipe[side] for pipe in pipes] for side in (0, 1))
        threads = max(1, torch.get_num_threads() // len(pipes))
        # PyTorch's own starter also lets the kernel end the replicas when this process is killed.
        self._processes = multiprocessing.start_processes(
            _run,
            (self._devices, theirs, self._start, threads),
            len(pipes),
            join=False,
            daemon=True,
            start_method="spawn",
        ).processes
        for end in theirs:
            end.close()
        self._free: list[connection.Connection] = []
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(GRACE)
            if process.is_alive():
                process.kill()
                process.join()
        for end in self._ends:
            end.close()

    def map(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(place, result) of each item, in the order in which they are done; to be read to the end."""
        waiting = deque(range(len(items)))
        working: dict[connection.Connection, int] = {}
        left = len(items)
        while left:
            while waiting and self._free:
                end = self._free.pop()
                working[end] = waiting.popleft()
                end.send(items[working[end]])
            for ready in connection.wait(self._ends):
                assert isinstance(ready, connection.Connection)
                found = self._received(ready)
                self._free.append(ready)
                if ready in working:
                    left -= 1
                    yield working.pop(ready), found

    def _received(self, end: connection.Connection) -> Any:
        number = self._ends.index(end)
        try:
            kind, found = end.recv()
        except (EOFError, ConnectionResetError):
            self._processes[number].join(GRACE)
            code = self._processes[number].exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ValueError(
                f"the replica on {self._devices[number]} has ended ({how}), most often for lack of memory. Ask for "
                "more (--set-resources), or lower config `resources.replicas`."
            ) from None
        if kind == "refused":
            raise ValueError(found)
        if kind == "broken":
            raise RuntimeError(f"on {self._devices[number]}:\n{found}")
        return found


def in_order(found: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    """The results of `Replicas.map` in the order of their items; those that are early wait."""
    early: dict[int, Any] = {}
    following = 0
    for place, result in found:
        early[place] = result
        while following in early:
            yield early.pop(following)
            following += 1


def _run(
    number: int, devices: Sequence[str], ends: Sequence[connection.Connection], start: Start, threads: int
) -> None:
    """The life of a replica: says that it is ready, then answers one item after the other."""
    end = ends[number]
    for other in ends:
        if other is not end:
            other.close()
    torch.set_num_threads(threads)
    try:
        with start(devices[number]) as work:
            end.send(("ready", None))
            while True:
                try:
                    item = end.recv()
                except EOFError:  # nobody asks any more
                    return
                end.send(("done", work(item)))
    except (ValueError, OSError) as error:
        end.send(("refused", str(error)))
    except Exception:
        end.send(("broken", traceback.format_exc()))
