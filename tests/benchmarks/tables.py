"""The tables that the benchmarks print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tests.benchmarks.clients import BARE, CLIENTS, OURS, PEERS
from tests.benchmarks.polling import FEW, INTERVALS, MANY, SOME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.benchmarks.polling import Results, Waited


@dataclass(frozen=True)
class Claim:
    """Something that must hold within one run."""

    what: str
    measured: str
    bound: str
    holds: bool


def polling_table(results: Results) -> Table:
    """CPU and blocks of the event loop."""
    titles = (
        "waits",
        "",
        "CPU per poll",
        "while starting",
        "loop blocked",
        "while starting",
        "all started in",
        "polls/s",
    )
    table = _table("Polling: many waits in one event loop", titles, left=2)
    for waits in (FEW, SOME, MANY):
        for client in (OURS, BARE, *PEERS):
            if not (found := results.get((client, waits))):
                continue
            name = (
                f"{waits:,}, each {INTERVALS[waits]:g} s" if client == OURS else "",
                CLIENTS[client].title,
            )
            if found.problem:
                table.add_row(*name, found.problem[:60])
                continue
            table.add_row(
                *name,
                _ms(found.cpu, 3),
                _ms(found.start_cpu, 3),
                _ms(found.blocked),
                _ms(found.start_blocked),
                f"{found.starved:,} not in {found.started_in:.0f} s"
                if found.starved
                else f"{found.started_in:.1f} s",
                f"{found.rate:.0f}",
            )
        table.add_section()
    return table


def resources_table(results: Results) -> Table:
    """Memory, connections, tokens, lost waits."""
    titles = (
        "waits",
        "",
        "memory each, beyond a sleeping task",
        "connections at once",
        "altogether",
        "token requests",
        "waits lost",
    )
    table = _table("What waiting takes", titles, left=2)
    for waits in (FEW, SOME, MANY):
        for client in (OURS, BARE, *PEERS):
            if not (found := results.get((client, waits))) or found.problem:
                continue
            table.add_row(
                f"{waits:,}" if client == OURS else "",
                CLIENTS[client].title,
                "" if found.memory is None else f"{found.memory / 1000:.1f} KB",
                f"{found.most:,}",
                f"{found.total:,}",
                f"{found.tokens} in {found.lives} {'life' if found.lives == 1 else 'lives'}"
                if client == OURS
                else "",
                _lost(found),
            )
        table.add_section()
    return table


def polling_claims(results: Results) -> Iterator[Claim]:
    """What must hold of polling."""
    for waits in (FEW, SOME, MANY):
        ratio = results[OURS, waits].cpu / results[BARE, waits].cpu
        yield Claim(
            f"CPU per poll, beside bare aiohttp, {waits:,} waits",
            f"{ratio:.2f}x",
            "at most 1.3x",
            ratio <= 1.3,
        )
    for waits in (FEW, SOME):
        peers = {
            CLIENTS[peer].title: found
            for peer in PEERS
            if (found := results.get((peer, waits))) and not found.problem
        }
        if peers:
            best = min(peers, key=lambda title: peers[title].cpu)
            ratio = peers[best].cpu / results[OURS, waits].cpu
            what = f"CPU per poll, beside the best peer ({best}), {waits:,} waits"
            yield Claim(what, f"{ratio:.1f}x less", "at least 6x less", ratio >= 6)
    beyond = results[OURS, SOME].start_blocked - results[BARE, SOME].start_blocked
    yield Claim(
        f"event loop blocked beyond bare aiohttp while {SOME:,} waits start at once",
        _ms(beyond),
        "at most 20 ms",
        beyond <= 0.020,
    )
    many = results[OURS, MANY]
    assert many.memory is not None
    of = f"of {MANY:,} waits in one process"
    yield Claim(
        f"memory {of}, each beyond a sleeping task",
        f"{many.memory / 1000:.1f} KB",
        "at most 10 KB",
        many.memory <= 10_000,
    )
    yield Claim(
        f"token requests {of}",
        f"{many.tokens}",
        f"at most {many.lives}, one for each token's life",
        many.tokens <= many.lives,
    )
    yield Claim(f"connections {of}", f"{many.most}", "at most 100", many.most <= 100)
    yield Claim(f"lost {of}", _lost(many), "none", not many.lost)


def imports_table(found: dict[str, Any]) -> Table:
    """What importing costs."""
    table = _table("Importing the operators and sensors", ("", "wall clock", "CPU"))
    table.add_row("the SDK alone", _ms(found["sdk"]["wall"]), _ms(found["sdk"]["cpu"]))
    table.add_section()
    for title, one in found["beyond"].items():
        if isinstance(one, str):
            table.add_row(f"{title}, beyond the SDK", one[:60])
        else:
            table.add_row(f"{title}, beyond the SDK", _ms(one["wall"]), _ms(one["cpu"]))
    return table


def imports_claims(found: dict[str, Any]) -> Iterator[Claim]:
    """What must hold of importing."""
    ours = found["beyond"][CLIENTS[OURS].title]
    for clock, title in (("wall", "wall clock"), ("cpu", "CPU")):
        yield Claim(
            f"importing beyond the SDK, {title}", _ms(ours[clock]), "at most 50 ms", ours[clock] <= 0.050
        )


def patience_table(found: dict[str, Any]) -> Table:
    """How often is asked, and how late the end is seen."""
    titles = ("operation of about", "", "polls", "mean delay", "longest delay")
    table = _table("Polls until the end is seen, default settings, simulated clock", titles, left=2)
    for length, one in found["lengths"].items():
        for name, title in (("ours", CLIENTS[OURS].title), ("constant", "each 60 s")):
            row = one[name]
            table.add_row(
                length if name == "ours" else "",
                title,
                f"{row['polls']:,.1f}",
                f"{row['delay']:.0f} s",
                f"{row['longest_delay']:.0f} s",
            )
        table.add_section()
    return table


def patience_claims(found: dict[str, Any]) -> Iterator[Claim]:
    """What must hold of the polls' number and of the delay."""
    days, minutes = found["lengths"]["5 days"], found["lengths"]["10 minutes"]
    ratio = days["constant"]["polls"] / days["ours"]["polls"]
    yield Claim(
        "polls of a 5 days' operation, beside one a minute", f"1/{ratio:.1f}", "at most 1/8", ratio >= 8
    )
    longest = days["ours"]["longest_delay"]
    yield Claim(
        "longest delay of a 5 days' operation",
        f"{longest:.0f} s",
        f"max_wait, {found['max_wait']:.0f} s",
        longest <= found["max_wait"],
    )
    mean = minutes["ours"]["delay"]
    yield Claim("mean delay of a 10 minutes' operation", f"{mean:.0f} s", "at most 30 s", mean <= 30)


def claims_table(claims: Sequence[Claim]) -> Table:
    """Everything that must hold."""
    table = _table("What must hold", ("", "measured", "bound", "holds"))
    for claim in claims:
        table.add_row(
            claim.what, claim.measured, claim.bound, "[green]yes" if claim.holds else "[bold red]no"
        )
    return table


def _table(title: str, columns: Sequence[str], left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right")
    return table


def _lost(found: Waited) -> str:
    return f"{found.lost:,}, {found.waiting:,} of them still waiting" if found.waiting else f"{found.lost:,}"


def _ms(seconds: float, digits: int = 0) -> str:
    return f"{seconds * 1000:.{digits}f} ms"
