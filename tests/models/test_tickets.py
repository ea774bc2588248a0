"""The demo data set: enough rows, each record copied from its ticket, nothing shared between training and measuring."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "tickets"
ISSUES = {"damaged", "late", "wrong item", "refund"}


def read(name: str) -> list[tuple[str, dict[str, str]]]:
    """(ticket, record) of every row."""
    rows = [json.loads(line)["messages"] for line in (FOLDER / name).read_text("utf-8").splitlines()]
    assert all([m["role"] for m in row] == ["user", "assistant"] for row in rows)
    return [(row[0]["content"], json.loads(row[1]["content"])) for row in rows]


@pytest.mark.parametrize("name,count", [("train.jsonl", 120), ("heldout.jsonl", 40)])
def test_every_value_stands_in_its_ticket(name: str, count: int) -> None:
    rows = read(name)
    assert len(rows) == count
    for ticket, record in rows:
        copied = {key: value for key, value in record.items() if key != "issue"}
        assert list(record) == list(rows[0][1])
        assert record["issue"] in ISSUES
        assert all(value in ticket for value in copied.values()), ticket


def test_issues_are_balanced() -> None:
    for name in ("train.jsonl", "heldout.jsonl"):
        issues = [record["issue"] for _, record in read(name)]
        assert {issues.count(issue) for issue in ISSUES} == {len(issues) // len(ISSUES)}


def test_held_out_tickets_share_nothing_with_training() -> None:
    trained, held_out = read("train.jsonl"), read("heldout.jsonl")
    assert not {ticket for ticket, _ in trained} & {ticket for ticket, _ in held_out}
    for key in trained[0][1].keys() - {"issue"}:
        assert not {record[key] for _, record in trained} & {record[key] for _, record in held_out}, key
