"""Conversations that turn a message into a record: the prompt names the fields, the values are copied.

The schema stands in the request, in the system message or in an earlier turn, so that fine-tuning finds the steps in
place and has only to learn which schema is meant.
"""

import json
from collections.abc import Collection
from random import Random

from . import words
from .passages import Source
from .summarize import Messages, message, system
from .words import pick

_LABELS = {
    "name": "name|name|name|customer|client|customer_name|person|who|sender|from",
    "order": "order|order|order|order_id|id|number|order_number|reference|ref|ticket|code|case",
    "product": "product|product|item|article|thing|what|goods",
    "city": "city|town|place|location|where",
    "date": "date|day|when|delivery_date",
    "amount": "amount|price|total|cost|sum|paid",
    "email": "email|mail|address|contact",
    "company": "company|firm|shop|seller|brand",
    "issue": "issue|issue|category|problem|topic|kind|type|label",
}
_ISSUES = {
    "damaged": (
        "arrived broken|is damaged|has a crack|came with a scratch|was smashed in the box|is dented|has a broken "
        "handle|was torn|fell apart"
    ),
    "late": (
        "has not arrived yet|is late|still has not come|is a week late|was due on {day} and is not here|never "
        "turned up|has been delayed twice"
    ),
    "refund": (
        "should be refunded|goes back to you, I want my money back|is not for me, please refund it|I want a refund "
        "for|is a return"
    ),
    "wrong item": (
        "is the wrong one|is not what I ordered|came in the wrong colour|is the wrong size|was swapped for "
        "something else"
    ),
    "billing": (
        "was charged twice|was billed wrong|shows the wrong sum on the invoice|was paid, but the invoice says otherwise"
    ),
    "missing part": "came without its cable|lacks a screw|has a part missing|came without the manual|is incomplete",
    "question": "does it come with a warranty|can it be washed|how do I switch it on|does it work outdoors",
}
_OPEN = (
    "Hi, this is {name}. |Hello, {name} here. |My name is {name}. |{name} here: |I am {name}. |This is {name} from "
    "{city}. |"
    "{name} wrote: |Message from {name}: |Good morning, my name is {name}. |Dear team, |Hello, |Hi, |"
)
_MIDDLE = (
    "The {product} from order {order} {issue}.|My order {order}, a {product}, {issue}.|Order {order}: the {product} "
    "{issue}.|"
    "I ordered a {product} (order {order}) and it {issue}.|The {product} I bought {issue}. My order number is {order}.|"
    "I bought the {product} from {company}. It {issue}. The order is {order}.|About {order}: my {product} {issue}.|"
    "On {date} I ordered a {product}, number {order}, and it {issue}.|I paid {amount} for the {product} in order "
    "{order}, and it {issue}.|"
    "Reference {order}. The {product} {issue}.|The {product} {issue}, see order {order}.|Can you look at {order}? "
    "The {product} {issue}."
)
_END = (
    " Thanks, {name}| Regards, {name}| {name}| Please write to {email}.| Yours, {name}.| Please help.| I live in "
    "{city}.| Thank you!| Best, {name}|"
    " Please call me before {date}.| - {name}, {city}| It cost {amount}.| What now?| Signed: {name}."
)
_PLAIN = (
    "{name} from {city} bought a {product} for {amount}.|{company} shipped order {order} to {city} on {date}.|On "
    "{date}, {name} paid {amount} to {company}.|"
    "{name} ({email}) ordered the {product}.|Invoice {order}: {amount}, due {date}, sent to {name}.|{name} will "
    "visit {company} in {city} on {date}.|"
    "Booking {order} for {name}, {city}, {date}.|The {product} (number {order}) goes to {name} at {company}.|"
    "{company} in {city} sells the {product} for {amount}."
)
_ASK = "Extract|Extract|Give|List|Find|Return|Write down|Pull out|Get"
_FORMATS = ("json",) * 8 + ("lines", "lines", "pairs", "csv")
_FORMAT_WORDS = {
    "json": " as JSON| as JSON| as a JSON object| as one line of JSON| in JSON|: answer with JSON",
    "lines": " as lines of key: value| one per line| as key: value| line by line",
    "pairs": " as key=value pairs| as key=value; key=value",
    "csv": " separated by commas| as CSV| as a comma-separated line",
}


def draw(rng: Random, wanted: Collection[str] = ()) -> tuple[str, dict[str, str]]:
    """A message and the values of the fields that it states, if possible those that are wanted."""
    for _ in range(6):
        text, stated = _draw(rng)
        if stated.keys() >= set(wanted):
            break
    return text, stated


def _draw(rng: Random) -> tuple[str, dict[str, str]]:
    label = rng.choice(list(_ISSUES))
    values = {
        "name": words.person(rng) if rng.random() < 0.75 else words.first_name(rng),
        "order": words.code(rng), "product": words.item(rng),
        "city": words.city(rng), "date": words.date(rng), "amount": words.amount(rng), "email": words.email(rng),
        "company": words.company(rng), "issue": pick(rng, _ISSUES[label]).format(day=rng.choice(words.DAYS)),
    }  # fmt: skip
    if rng.random() < 0.3:
        template = pick(rng, _PLAIN)
    else:
        opening, ending = pick(rng, _OPEN), pick(rng, _END)
        if "{name}" in opening and "{name}" in ending:
            ending = ""
        template = opening + pick(rng, _MIDDLE) + ending
    stated = {field: text for field, text in values.items() if f"{{{field}}}" in template}
    text = template.format(**values)
    if "issue" in stated:
        stated["issue"] = label
    return text, stated


def write(kind: str, record: dict[str, str | None]) -> str:
    """A record in one of the formats."""
    if kind == "json":
        return json.dumps(record, ensure_ascii=False)
    if kind == "lines":
        return "\n".join(f"{k}: {v or 'none'}" for k, v in record.items())
    if kind == "pairs":
        return "; ".join(f"{k}={v or 'none'}" for k, v in record.items())
    return ", ".join(v or "none" for v in record.values())


def _schema(rng: Random, stated: dict[str, str]) -> dict[str, str]:
    """Two to five fields with the labels they have here: mostly such that the message states."""
    fields = rng.sample(list(stated), rng.randint(min(2, len(stated)), min(5, len(stated))))
    if rng.random() < 0.1:
        fields.append(rng.choice([f for f in _LABELS if f not in fields]))
    labels: dict[str, str] = {}
    for field in fields:
        label = field if rng.random() < 0.5 else pick(rng, _LABELS[field])
        label = label.upper() if rng.random() < 0.04 else label.capitalize() if rng.random() < 0.08 else label
        if label not in labels.values():
            labels[field] = label
    return labels


def _request(rng: Random, labels: dict[str, str], kind: str) -> str:
    names = list(labels.values())
    if kind == "json" and rng.random() < 0.25:
        return pick(rng, "Fill this in: |Return |Format: |Answer as ") + json.dumps(dict.fromkeys(names, "..."))
    if rng.random() < 0.25:
        return f"Fields: {', '.join(names)}\nFormat: {kind}"
    listed = (
        ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
        if rng.random() < 0.6
        else ", ".join(names)
    )
    source = pick(rng, " from this message| from the following text| from the message below| from the text|")
    request = f"{pick(rng, _ASK)} {listed}{source}{pick(rng, _FORMAT_WORDS[kind])}."
    if "issue" in labels and rng.random() < 0.4:
        request += f" {labels['issue'].capitalize()} is one of: {', '.join(_ISSUES)}."
    return request


def extract(rng: Random, source: Source) -> Messages:
    """One to four messages and their records under one schema."""
    del source
    text, stated = draw(rng)
    labels, kind = _schema(rng, stated), rng.choice(_FORMATS)
    request = _request(rng, labels, kind)
    place = rng.random()
    if place < 0.35:
        messages = [message("system", request), message("user", text)]
    elif place < 0.75:
        messages = [*system(rng), message("user", f"{request}\n\n{text}")]
    else:
        messages = [*system(rng), message("user", f"{text}\n\n{request}")]
    messages.append(message("assistant", write(kind, {label: stated.get(f) for f, label in labels.items()})))
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        text, stated = draw(rng, labels if rng.random() < 0.8 else ())
        record = {label: stated.get(f) for f, label in labels.items()}
        messages += [message("user", text), message("assistant", write(kind, record))]
    return messages
