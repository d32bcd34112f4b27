"""``pip install --editable DIRECTORY`` as far as importlib sees it, without a network: metadata and a path.

``$SITE`` is a directory on the path; its file ``paths`` lists the others.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path


def install(directory: Path, site: Path) -> str:
    """Make the metadata of the project in ``directory``; return its name and version."""
    project = tomllib.loads((directory / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = [f"{key} = {value}" for key, value in project["entry-points"]["vbackup"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[vbackup]", *points, ""]))
    with (site / "paths").open("a") as paths:
        paths.write(f"{directory / 'src'}\n")
    return f"{name}-{version}"


if __name__ == "__main__":
    print("Successfully installed", install(Path(sys.argv[-1]).resolve(), Path(os.environ["SITE"])))
