"""Texts to compare two programs on where there are no rows of the person's own: an adapter that came from elsewhere."""

from __future__ import annotations

from pathlib import Path

from localllm.data.dataset import read_dataset
from localllm.data.examples import Encoder
from localllm.engine.llama import LlamaEngine
from localllm.errors import DataError
from localllm.types import Conversation, Example, Message
from localllm.weights.architectures.base import integer
from localllm.weights.gguf import read_header

PROBES = (
    ("What is the capital of France?", "The capital of France is Paris, on the river Seine."),
    ("Write a haiku about autumn.",
     "Leaves drift on cold wind,\nthe pond holds the last daylight,\ngeese call and are gone."),
    ("Reverse a list in Python.", "```python\nitems = [1, 2, 3]\nprint(items[::-1])  # [3, 2, 1]\n```"),
    ("What is 17 times 23?", "17 times 23 is 391: 17 times 20 is 340, 17 times 3 is 51, and together that is 391."),
    ("Translate to German: The train leaves at noon.", "Der Zug fährt um zwölf Uhr mittags ab."),
    ("Give the fields of this order as JSON: two blue chairs for Ms. Okafor.",
     '{"customer": "Okafor", "items": [{"name": "chair", "color": "blue", "count": 2}]}'),
    ("Summarize: The council met on Monday and agreed to repair the old bridge before winter.",
     "The council will have the old bridge repaired before winter."),
    ("Classify the mood of: I waited an hour and nobody came.", "negative"),
    ("SELECT the names of all customers from Oslo.", "SELECT name FROM customers WHERE city = 'Oslo';"),
    ("Why is the sky blue?", "Air scatters the short waves of sunlight more than the long ones: the blue ones."),
    ("Name three fruits.", "1. Apple\n2. Pear\n3. Cherry"),
    ("Who wrote Hamlet, and when?", "William Shakespeare wrote Hamlet around the year 1600."),
)  # fmt: skip
_LONGEST = 256


def probe_rows(model: Path, data: Path | None = None) -> list[Example]:
    """Rows of a dataset, or else the probes, as the model's own tokens. Raises DataError, ModelError."""
    if data is not None:
        conversations = list(read_dataset(data)[:64])
    else:
        pairs = ((Message("user", question), Message("assistant", answer)) for question, answer in PROBES)
        conversations = [Conversation(pair, None, line) for line, pair in enumerate(pairs, 1)]
    engine = LlamaEngine.open(model, vocab_only=True)
    try:
        encoder = Encoder(engine, engine.info.has_template, engine.vocab.eos, engine.vocab.is_end)
        rows = [encoder.encode(row)[0] for row in conversations]
    finally:
        engine.close()
    longest = min(_LONGEST, integer(read_header(model), "context_length"))
    rows = [Example(row.tokens[:longest], row.mask[:longest], row.line) for row in rows if len(row.tokens) > 1]
    if not rows:
        raise DataError("There is nothing in it to compare the programs on.", path=data)
    return rows
