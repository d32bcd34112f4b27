"""Real servers as pytest fixtures, for the tests of this tree and of ``plugins/*/tests``."""
