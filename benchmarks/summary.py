"""From the repetitions of a case to the numbers of a table row.

In: a case record as `record.newest` gives it. Out: `Row`s: rate, ratio to ours by bandwidth state,
share of the read bandwidth. Round 0 is dropped; a round in which other processes took more than
`BUSY` of the machine is dropped too, unless no quiet round is left, and then the row says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .ratios import Spread, ratios, spread, state_of

BUSY = 0.12
STATES = ("all", "slow", "fast")


@dataclass(frozen=True)
class Row:
    """One contender in one case. `ratios`: how many times faster ours is, by bandwidth state."""

    contender: str
    rate: Spread
    seconds: Spread
    ratios: dict[str, Spread]
    roofline: dict[str, Spread]
    """Needed bytes a second over the read bandwidth beside it, by state; empty if the bytes are not
    known.
    """
    bandwidth: Spread
    resident_bytes: int
    peak_bytes: int
    busy: bool
    others: Spread
    """Share of the machine that other processes took."""
    details: Mapping[str, float | str]


def by_contender(
    measurements: Sequence[Mapping[str, Any]],
) -> dict[str, dict[int, Mapping[str, Any]]]:
    """contender -> round -> measurement, without round 0."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for one in measurements:
        if one["round"] > 0:
            found.setdefault(one["contender"], {})[one["round"]] = one
    return found


def quiet_rounds(
    rounds: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]
) -> list[int]:
    """Rounds both contenders finished while nobody else used the machine."""
    both = sorted(set(rounds) & set(others))
    return [i for i in both if rounds[i]["others"] <= BUSY and others[i]["others"] <= BUSY]


def rate(measurement: Mapping[str, Any]) -> float:
    """Tokens a second."""
    result = measurement["result"]
    return float(result["tokens"]) / float(result["seconds"])


def state(measurement: Mapping[str, Any]) -> str:
    return state_of([measurement["bandwidth_before"], measurement["bandwidth_after"]])


def roofline(measurement: Mapping[str, Any]) -> float:
    """Share of the read bandwidth beside the repetition that its needed bytes make up."""
    bandwidth = float(measurement["bandwidth_before"] + measurement["bandwidth_after"]) / 2
    return (
        float(measurement["result"]["details"]["needed_bytes"])
        * rate(measurement)
        / (bandwidth * 1e9)
    )


def rows(record: Mapping[str, Any], ours: str = "ours") -> list[Row]:
    """One row for each contender that finished a round, ours first. States are those of our
    repetitions.
    """
    found = by_contender(record["measurements"])
    reference = found.get(ours, {})
    return [row(name, rounds, reference or rounds, name == ours) for name, rounds in found.items()]


def row(
    name: str,
    rounds: Mapping[int, Mapping[str, Any]],
    reference: Mapping[int, Mapping[str, Any]],
    is_ours: bool,
) -> Row:
    chosen = quiet_rounds(rounds, reference)
    busy = not chosen
    if busy:
        chosen = sorted(set(rounds) & set(reference)) or sorted(rounds)
    states: dict[str, list[int]] = {"all": chosen}
    for one in STATES[1:]:
        states[one] = [i for i in chosen if i in reference and state(reference[i]) == one]
    compared: dict[str, Spread] = {}
    shares: dict[str, Spread] = {}
    for label, members in states.items():
        pairs = [i for i in members if i in reference]
        values = ratios([rate(reference[i]) for i in pairs], [rate(rounds[i]) for i in pairs])
        if values and not is_ours:
            compared[label] = spread(values)
        if members and "needed_bytes" in rounds[members[0]]["result"]["details"]:
            shares[label] = spread([roofline(rounds[i]) for i in members])
    last = rounds[chosen[-1]]["result"]
    return Row(
        contender=name,
        rate=spread([rate(rounds[i]) for i in chosen]),
        seconds=spread([float(rounds[i]["result"]["seconds"]) for i in chosen]),
        ratios=compared,
        roofline=shares,
        bandwidth=spread(
            [(rounds[i]["bandwidth_before"] + rounds[i]["bandwidth_after"]) / 2 for i in chosen]
        ),
        resident_bytes=last["resident_bytes"],
        peak_bytes=max(one["result"]["peak_bytes"] for one in rounds.values()),
        busy=busy,
        others=spread([float(rounds[i]["others"]) for i in chosen]),
        details=last["details"],
    )
