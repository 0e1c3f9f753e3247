"""The command line: ``python -m airflow_provider_cpp.emulator``, or ``cloud-partner-emulator``."""

from __future__ import annotations

import argparse
import ipaddress
import math
import signal
import socket
import sys
from pathlib import Path

_EXTRA = {"starlette", "trustme", "uvicorn", "jwt", "cryptography"}


def main(arguments: list[str] | None = None) -> int:
    """Run the emulator and return the exit code: 0 stopped, 1 it can't run, 2 wrong use or a bad file."""
    options = _options(arguments)
    # For the time before the server takes care of them, and for its end, when it raises them again.
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
                f"WARNING: {options.host} is not a loopback address: anybody who reaches it can control this "
                "emulator without a token, and read what it was asked.\n"
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
        description="A local Cloud Partner Portal. When it is ready, it prints the Airflow connection to it.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8443, help="0: any free one (default: %(default)s)")
    parser.add_argument(
        "--time-scale",
        type=_positive,
        default=1.0,
        metavar="FACTOR",
        help="operations run so many times faster than at the service; 86400: a day in a second",
    )
    parser.add_argument(
        "--seed", type=Path, metavar="FILE", help="JSON: publishers, offers and principals to start with"
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep everything there, and go on from it, whatever the seed",
    )
    parser.add_argument(
        "--hostname",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="the certificate holds for it as well",
    )
    parser.add_argument("--tls-dir", type=Path, metavar="DIR", help="keep the certificate authority there")
    parser.add_argument(
        "--token-lifetime", type=int, default=3599, metavar="SECONDS", help="default: %(default)s"
    )
    parser.add_argument(
        "--token-valid",
        type=_positive,
        metavar="SECONDS",
        help="the API refuses tokens after so long already, whatever was said about their lifetime",
    )
    parser.add_argument(
        "--clock-offset",
        type=_offset,
        default=0.0,
        metavar="SECONDS",
        help="what clients are told about time is off by so much; negative: behind",
    )
    parser.add_argument(
        "--faults", type=Path, metavar="FILE", help="JSON: an array of faults that hold from the start"
    )
    parser.add_argument(
        "--random-seed",
        type=int,
        default=0,
        metavar="NUMBER",
        help="on which it depends whom faults with a probability hit (default: %(default)s)",
    )
    parser.add_argument("--verbose", action="store_true", help="a line on standard error per request")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


def _offset(text: str) -> float:
    value = float(text)
    # Further off, there may be no date for it.
    if not abs(value) <= 1e9:
        raise argparse.ArgumentTypeError("must be from -1e9 to 1e9")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return value


def _is_loopback(host: str) -> bool:
    """Return whether all addresses of a name, or an address itself, are of the loopback."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError as error:
        raise OSError(f"can't listen at {host}: {error.strerror}") from None
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"cloud-partner-emulator: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
