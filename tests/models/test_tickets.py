"""The demo data set: enough rows, each record copied from its ticket, nothing shared between training and measuring."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "assets/tickets"
FIELDS = ["Name", "Order", "Product", "Issue"]
ISSUES = {"damaged", "late", "wrong", "refund"}


def read(name: str) -> list[tuple[str, dict[str, str]]]:
    """(ticket, record) of every row."""
    rows = [json.loads(line)["messages"] for line in (FOLDER / name).read_text("utf-8").splitlines()]
    assert all([m["role"] for m in row] == ["user", "assistant"] for row in rows)
    lines = [[line.split(": ") for line in row[1]["content"].split("\n")] for row in rows]
    return [(row[0]["content"], dict(pairs)) for row, pairs in zip(rows, lines, strict=True)]


@pytest.mark.parametrize("name, count", [("train.jsonl", 120), ("heldout.jsonl", 40)])
def test_every_value_stands_in_its_ticket(name: str, count: int) -> None:
    rows = read(name)
    assert len(rows) == count
    for ticket, record in rows:
        assert list(record) == FIELDS
        assert all(value in ticket for value in record.values()), ticket
        assert [issue for issue in ISSUES if issue in ticket] == [record["Issue"]], "the ticket names one issue only"


def test_issues_are_balanced() -> None:
    for name in ("train.jsonl", "heldout.jsonl"):
        issues = [record["Issue"] for _, record in read(name)]
        assert {issues.count(issue) for issue in ISSUES} == {len(issues) // len(ISSUES)}


def test_held_out_tickets_share_nothing_with_training() -> None:
    trained, held_out = read("train.jsonl"), read("heldout.jsonl")
    assert not {ticket for ticket, _ in trained} & {ticket for ticket, _ in held_out}
    for key in FIELDS[:3]:
        assert not {record[key] for _, record in trained} & {record[key] for _, record in held_out}, key
