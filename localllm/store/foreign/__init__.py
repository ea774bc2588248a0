"""Models that other programs have already put on this machine: found, named and used where they lie.

Nothing here writes: the files belong to somebody else, and are never copied, moved or deleted.
"""
