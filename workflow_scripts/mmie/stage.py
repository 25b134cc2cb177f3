"""Runs a stage's ``main`` from a rule or from the command line, and shows its progress."""

import argparse
import fcntl
import inspect
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

import psutil

log = logging.getLogger("mmie")
T = TypeVar("T")

_claims: list[TextIO] = []  # open, and so locked, until the process ends
_CASTS: dict[Any, Callable[[str], Any]] = {int: int, float: float, dict: json.loads}


def run(main: Callable[..., None], snakemake: Any = None) -> None:
    """
    Call ``main`` with the rule's named inputs, outputs and params, or with ``--name value``.

    A ``ValueError`` (bad input) or ``OSError`` (disk) ends the job with its message alone; anything else is a bug and
    leaves its traceback in the log.
    """
    parameters = inspect.signature(main).parameters
    given = _from_command_line(main, parameters) if snakemake is None else _from_rule(snakemake)
    _log_to(snakemake)
    log.debug("started in %.1f s", time.time() - _process_start())
    try:
        main(**{name: _cast(given[name], p) for name, p in parameters.items() if name in given})
    except (ValueError, OSError) as error:
        log.debug("where it happened", exc_info=True)
        log.error("%s", _readable(error))
        raise SystemExit(1) from None
    except Exception:
        log.exception("%s failed", main.__module__)
        raise


def track(items: Iterable[T], total: int, what: str, every: float = 10.0) -> Iterator[T]:
    """Yield ``items``, and log how many of ``total`` are done, and the time left, every ``every`` seconds."""
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= every or (done == total and now - start >= every):
            last = now
            log.info("%s: %d of %d, %.0f s left", what, done, total, (now - start) / done * (total - done))


def _from_rule(snakemake: Any) -> dict[str, Any]:
    # The number of replicas is a resource, and no param: it changes no result, and must not rerun anything.
    shared = {"replicas": snakemake.resources.get("replicas", 1)}
    return {**shared, **snakemake.input, **snakemake.output, **snakemake.params}


def _from_command_line(main: Callable[..., None], parameters: Any) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(sys.modules[main.__module__]), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, p in parameters.items():
        parser.add_argument(
            f"--{name}",
            nargs="*" if p.annotation == list[str] else None,
            required=p.default is p.empty,
            default=argparse.SUPPRESS,
        )
    return vars(parser.parse_args())


def _cast(value: Any, parameter: inspect.Parameter) -> Any:
    if parameter.annotation == list[str]:
        return [value] if isinstance(value, str) else [str(item) for item in value]
    cast = _CASTS.get(parameter.annotation)
    return cast(value) if cast and isinstance(value, str) else value


def _log_to(snakemake: Any) -> None:
    """Log to the terminal with the job's name in front, and to the rule's log file in full."""
    log.setLevel(logging.DEBUG)
    job = "mmie" if snakemake is None else " ".join([snakemake.rule, *map(str, snakemake.wildcards)])
    screen = logging.StreamHandler()
    screen.setLevel(logging.INFO)
    screen.setFormatter(logging.Formatter(f"[{job}] %(message)s"))
    log.addHandler(screen)
    if snakemake is not None and snakemake.log:
        claim(Path(snakemake.log[0]))
        file = logging.FileHandler(snakemake.log[0], mode="w", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
        logging.getLogger("py.warnings").addHandler(file)
        logging.captureWarnings(True)


def claim(log_file: Path) -> TextIO:
    """
    Wait until no other process runs the job of this log, then hold it for as long as this process lives.

    A Snakemake that was killed leaves its cluster jobs running. When the next one starts the same job, it waits here
    until the first has ended, on whatever node: two never write one output. The lock is a file of its own, for
    Snakemake replaces the log.
    """
    path = lock_of(log_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("an earlier job still writes these outputs (its log is %s): waiting until it ends", log_file)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        log.warning("%s cannot be locked (%s): cancel a killed run's jobs before you start it again", path, error)
    _claims.append(file)
    return file


def lock_of(log_file: Path) -> Path:
    """The file that the job of this log holds locked: hidden, empty, beside the log."""
    return log_file.with_name(f".{log_file.stem}.lock")


def _process_start() -> float:
    """When this process began, seconds since the epoch: what lies before main() is start-up and imports."""
    return float(psutil.Process().create_time())


def _readable(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == 28:
        what = error.filename or "an output"
        return f"no space left on the device for {what}. Free some and start again; finished stages are kept."
    return str(error)
