"""The command line: ``python -m airflow_provider_cpp.emulator``, or ``cloud-partner-emulator``."""

from __future__ import annotations

import argparse
import ipaddress
import math
import signal
import socket
import sys
from pathlib import Path

from airflow_provider_cpp.emulator.operations import STEPS

_EXTRA = {"starlette", "trustme", "uvicorn", "jwt", "cryptography", "pydantic"}

_STATES = ("never-published", "publishing", "preview", "going-live", "live")


def main(arguments: list[str] | None = None) -> int:
    """Run the emulator and return the exit code: 0 stopped, 1 cannot run, 2 wrong arguments or files."""
    options = _options(arguments)
    # The server handles these signals while it runs, and raises them again when it stops.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        from airflow_provider_cpp.emulator.faults import FaultError
        from airflow_provider_cpp.emulator.seed import SeedError
        from airflow_provider_cpp.emulator.server import run
        from airflow_provider_cpp.emulator.store import StoreError
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        return _fail(1, f'{package} is missing: pip install "airflow-provider-cpp[emulator]"')
    try:
        if not _is_loopback(options.host):
            sys.stderr.write(
                f"WARNING: {options.host} is not a loopback address: everyone who can reach it can control "
                "this emulator without a token, and read its requests.\n"
            )
        run(options)
    except (FaultError, SeedError) as error:
        return _fail(2, str(error))
    except (OSError, StoreError) as error:
        return _fail(1, str(error))
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cloud-partner-emulator",
        description="A local Cloud Partner Portal. It prints its Airflow connection when it is ready.",
        epilog=f"States of a seed's offers: {', '.join(_STATES)}. Steps (stepSeconds, fail.step): "
        f"{', '.join(STEPS)}. All keys of seed and fault files: docs/emulator.md, or "
        "`python -m pydoc airflow_provider_cpp.emulator.seed` and `…emulator.faults`.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8443, help="0: any free port (default: %(default)s)")
    parser.add_argument(
        "--time-scale",
        type=_positive,
        default=1.0,
        metavar="FACTOR",
        help="speed of operations relative to the service; 86400: one day per second",
    )
    parser.add_argument(
        "--seed", type=Path, metavar="FILE", help="JSON file with publishers, offers and principals"
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="store all data in this file; an existing file is loaded, and --seed is ignored",
    )
    parser.add_argument(
        "--hostname",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="additional name or address in the certificate",
    )
    parser.add_argument("--tls-dir", type=Path, metavar="DIR", help="directory of the certificate authority")
    parser.add_argument(
        "--token-lifetime",
        type=int,
        default=3599,
        metavar="SECONDS",
        help="seconds until a token expires (default: %(default)s)",
    )
    parser.add_argument(
        "--token-valid",
        type=_positive,
        metavar="SECONDS",
        help="seconds for which the API accepts a token, if shorter than its lifetime",
    )
    parser.add_argument(
        "--clock-offset",
        type=_offset,
        default=0.0,
        metavar="SECONDS",
        help="difference of times in responses from the real time; negative: behind",
    )
    parser.add_argument(
        "--faults",
        type=Path,
        metavar="FILE",
        help="JSON file with an array of faults that apply from the start",
    )
    parser.add_argument(
        "--random-seed",
        type=int,
        default=0,
        metavar="NUMBER",
        help="seed of faults with a probability (default: %(default)s)",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print a line on standard error for each request"
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


def _offset(text: str) -> float:
    value = float(text)
    # Larger offsets may lead to a time that has no date.
    if not abs(value) <= 1e9:
        raise argparse.ArgumentTypeError("must be from -1e9 to 1e9")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return value


def _is_loopback(host: str) -> bool:
    """Return whether an address, or all addresses of a name, are loopback addresses."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError as error:
        raise OSError(f"cannot listen at {host}: {error.strerror}") from None
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"cloud-partner-emulator: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
