"""Conversations on disk: one SQLite file of trees of turns, searchable as text.

records.py    the values that go in and out
schema.py     the tables, and how older files are brought up to date
database.py   the connection: locks, journal, transactions, errors
store.py      conversations: list, rename, pin, delete and undo, settings
turns.py      the turns of one: its tree, the branch that is shown, replies on their way
search.py     all text
exchange.py   everything as JSON and back; one conversation as Markdown
"""
