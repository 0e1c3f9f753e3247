"""The emulator's server: HTTPS, and connections that can be closed without a response."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_cpp.emulator import seed as seeds
from airflow_provider_cpp.emulator import store, tls
from airflow_provider_cpp.emulator.app import create_app
from airflow_provider_cpp.emulator.faults import FaultError, Faults
from airflow_provider_cpp.emulator.identity import Identity, Tokens
from airflow_provider_cpp.emulator.journal import Entry, Journal
from airflow_provider_cpp.emulator.service import Service

if TYPE_CHECKING:
    import asyncio
    from argparse import Namespace
    from collections.abc import Callable

    from airflow_provider_cpp.emulator.seed import Seed

# Addresses that the name localhost reaches.
_LOCALHOST = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")  # noqa: S104


def run(options: Namespace) -> None:
    """Run the emulator until SIGTERM or SIGINT.

    :param options: of the command line
    :raises SeedError: the seed is invalid
    :raises FaultError: the file of faults is invalid
    :raises StoreError: the state file is invalid
    :raises OSError: an address or a file cannot be used
    """
    document = _seed_document(options.seed)
    seed = seeds.parse(document)
    stored = store.read(options.state) if options.state else None
    if stored:
        document = stored["seed"]
        seed = seeds.parse(document)
        if options.seed:
            _warn(f"--seed {options.seed} is ignored: the state file {options.state} has its own seed.")
    faults = _faults(options.faults, options.random_seed)
    service = Service(time.time, options.time_scale, options.clock_offset)

    def save() -> None:
        if options.state:
            store.write(options.state, {"seed": document, "service": service.dump()})

    def reset() -> None:
        service.load_seed(seed)
        save()

    if stored:
        service.load(stored["service"])
    else:
        reset()
    tokens = Tokens(options.token_lifetime, options.token_valid)
    journal_file = options.state and options.state.with_name(f"{options.state.name}.requests")
    app = create_app(
        service,
        Identity(seed.principals, tokens, options.clock_offset),
        tokens,
        Journal(journal_file),
        faults,
        clock_offset=options.clock_offset,
        save=save,
        reset=reset,
        report=_print_entry if options.verbose else lambda _: None,
    )
    name = "localhost" if options.host in _LOCALHOST else options.host
    with ExitStack() as cleanup:
        files = tls.provide(_tls_directory(options, cleanup), [name, *options.hostname])
        listener = cleanup.enter_context(_listener(options.host, options.port))
        url = f"https://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}"

        def announce() -> None:
            for line in _introduction(url, files.ca, service, journal_file):
                sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
            sys.stdout.write(f"{json.dumps(_connection(url, files.ca, seed))}\n")
            sys.stdout.flush()

        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # The middleware adds it.
            date_header=False,
            # Longer than the time between two polls, so that clients rarely meet a connection that closes.
            timeout_keep_alive=120,
            timeout_graceful_shutdown=1,
            ssl_certfile=files.certificate,
            ssl_keyfile=files.key,
        )
        _Server(config, announce).run(sockets=[listener])


class _Protocol(H11Protocol):
    """HTTP on a connection that the application can abort: the scope's state has the transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}

    def shutdown(self) -> None:
        """Abort an idle connection: TLS would wait for the client to close it."""
        idle = self.cycle is None or self.cycle.response_complete
        super().shutdown()
        if idle:
            self.transport.abort()


class _Server(uvicorn.Server):
    """A server that announces when it accepts connections."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()


def _warn(message: str) -> None:
    sys.stderr.write(f"WARNING: {message}\n")
    sys.stderr.flush()


def _seed_document(file: Path | None) -> Any:
    if file is None:
        return seeds.BUILT_IN
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise seeds.SeedError(f"seed: {file} is not JSON: {error}") from None


def _faults(file: Path | None, random_seed: int) -> Faults:
    if file is None:
        return Faults((), random_seed)
    try:
        rules = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FaultError(f"faults: {file} is not JSON: {error}") from None
    if not isinstance(rules, list):
        raise FaultError(f"faults: {file} is not a JSON array")
    try:
        return Faults(rules, random_seed)
    except FaultError as error:
        raise FaultError(f"faults: {file}: {error}") from None


def _tls_directory(options: Namespace, cleanup: ExitStack) -> Path:
    if options.tls_dir:
        return Path(options.tls_dir)
    if options.state:
        return Path(f"{options.state}.tls")
    return Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="cloud-partner-emulator-")))


def _listener(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # asyncio sends small responses without delay only if the socket names its protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen at {host}, port {port}: {error.strerror}") from None
    return listener


def _connection(url: str, ca: Path, seed: Seed) -> dict[str, Any]:
    """Return the Airflow connection: the first publisher, and its first principal."""
    publisher = seed.publishers[0].id
    extra = {"publisherId": publisher, "authority": url, "verify": str(ca.resolve())}
    connection: dict[str, Any] = {"conn_type": "cloud_partner", "host": url}
    users = [principal for principal in seed.principals if publisher in principal.publishers]
    for principal in users[:1]:
        connection["login"] = principal.client_id
        if principal.secret is not None:
            connection["password"] = principal.secret
        extra["tenantId"] = principal.tenant_id
    return {**connection, "extra": extra}


def _introduction(url: str, ca: Path, service: Service, journal_file: Path | None) -> list[str]:
    lines = [f"Cloud Partner emulator: {url}, certificate authority {ca.resolve()}"]
    for publisher in service.publishers:
        offers = ", ".join(f"{offer.id} ({service.status(offer)})" for offer in service.offers(publisher))
        lines.append(f"Publisher {publisher}: {offers or 'no offers'}")
    kept = f", stored in {journal_file}" if journal_file else ""
    lines.append(f"Requests: {url}/_emulator/requests{kept}; offers: {url}/_emulator/offers")
    lines.append("The line on standard output is the value of AIRFLOW_CONN_CLOUD_PARTNER_DEFAULT.")
    return lines


def _print_entry(entry: Entry) -> None:
    status = "closed" if entry.status is None else entry.status
    fault = " (fault)" if entry.fault else ""
    sys.stderr.write(f"{entry.time} {entry.method} {entry.path} {status}{fault}\n")
    sys.stderr.flush()
