"""The terminal app. Importing this loads nothing; `localllm.tui.app` loads Textual."""
