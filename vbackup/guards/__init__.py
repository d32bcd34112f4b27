"""What stands between vbackup and the code of plugins, built-in ones no exception.

Each role has a guard that passes everything on and looks at what comes back. Whatever a plugin does that its role does
not allow becomes a `PluginError` that names the plugin and its type, and says how to go on without it. What a guard
lets through is what the rest of vbackup relies on; bytes are never looked at, for the repository hashes them.
"""
