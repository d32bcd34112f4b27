"""The command line: one file per command, no logic."""

import os

# Pydantic looks for plugins of its own among all that is installed, and one file there that cannot be read would end
# every command. Set here and not in the package: who uses vbackup as a library decides that for their own process.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
