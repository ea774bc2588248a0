"""One file for each command: `add` declares its options, `run` does it and returns the exit code.

Nothing heavy is imported at the top of these files, so that `localllm --help` stays quick.
"""
