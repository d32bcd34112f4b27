"""The site. Manuals stay beside what they describe, so its source directory is the root of the repository.

``make docs`` builds it. Links are relative paths of files: they work here as on a code host.
"""

from __future__ import annotations

project = "vbackup"
author = "the vbackup authors"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "vbackup/docs/index"
include_patterns = [
    "README.md",
    "plugins/*/README.md",
    "vbackup/**/*.md",
    "tests/bench/README.md",
    "tests/bench/results/report.md",
    "tests/vcsim/README.md",
    "tests/thirdparty/*/README.md",
]
exclude_patterns = [".*", "**/.*", "build", "dist", "**/__pycache__", "vbackup/scaffold"]
highlight_language = "text"
smartquotes = False  # two dashes begin an option
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # the report of the benchmark skips a level

# The API's docstrings name its classes in single backticks. Types of other libraries are not looked up: no network.
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config"}
default_role = "any"
nitpick_ignore_regex = [
    ("py:class", r"(?!vbackup\.).*|vbackup\.api\.\w+\.(T|_\w+)"),
    ("any", r"(click|threading)\b.*|Point(Disk)?\.\w+"),  # what is documented as a whole
]

templates_path = ["templates"]
html_theme = "furo"
html_title = "vbackup"
html_show_sphinx = False
html_copy_source = False
html_additional_pages = {"index": "home.html"}
