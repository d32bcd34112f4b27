"""The real ``vbackup`` command, on a configuration of a test's own.

::

    site = Site(tmp_path / "site", {"transports": ..., "targets": ..., "hypervisors": ..., "jobs": ...})
    site("init")
    site("run", "nightly")
    assert site("restore", "web@latest", "--as", "web", code=1).stderr == "vbackup: error: ..."
    (point,) = site.json("list")

Each command is a process of its own, so a plugin is found as it will be: it must be installed (``pip install -e .``).
State and cache lie below the directory of the site; nothing of this machine's own vbackup is read or written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMMAND = (sys.executable, "-P", "-c", "from vbackup.cli.main import main; main()")
"""What the script ``vbackup`` does, by the Python of the tests; ``-P``: what lies in the directory is not imported."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a command."""

    argv: tuple[str, ...]
    """What stood after ``vbackup``."""
    code: int
    """The exit code: 0 all done, 1 failed, 2 usage or configuration, 3 done with warnings; -n: killed by signal n."""
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"`vbackup {' '.join(self.argv)}` ended with {self.code}\n{self.stdout}{self.stderr}"


class CommandFailed(AssertionError):  # noqa: N818 - named for what happened
    """A command ended with another exit code than expected, or not in time; the message has all that it printed."""

    def __init__(self, result: Result, why: str) -> None:
        super().__init__(f"{why}: {result}")
        self.result = result


class Site:
    """A configuration in a directory, and the command that works on it.

    ``directory`` is made if it is not there; the configuration is written to ``vbackup.yaml`` in it. ``env`` adds to
    the environment of the commands. A command that takes more than ``timeout`` seconds is killed, and an error.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float = 300.0,
    ) -> None:
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.timeout = timeout
        self.env = _without_vbackup(os.environ) | {
            "VBACKUP_CONFIG": str(self.file),
            "VBACKUP_STATE_DIR": str(self.directory / "state"),
            "VBACKUP_CACHE_DIR": str(self.directory / "cache"),
            **(env or {}),
        }
        """What the commands see; a test that starts one itself gives it this."""
        self.configure(config)

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self.directory / "vbackup.yaml"

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write another configuration; what is kept in memory (a `Path`, say) is written as text."""
        self.config = config
        self.file.write_text(json.dumps(config, indent=2, default=str) + "\n")  # JSON is YAML

    def argv(self, *args: str | Path) -> list[str]:
        """Return what to start for ``vbackup ARGS``, with `env` and in `directory`, where a test does so itself."""
        return [*_COMMAND, *map(str, args)]

    def __call__(self, *args: str | Path, code: int | Collection[int] | None = 0, stdin: str = "") -> Result:
        """Run ``vbackup ARGS`` to its end.

        ``code`` is the exit code that is expected, one of several, or None for any.
        Raises: `CommandFailed` with all that was printed, when it is another.
        """
        told = tuple(map(str, args))
        try:
            done = subprocess.run(
                self.argv(*args), env=self.env, cwd=self.directory, input=stdin, capture_output=True,
                encoding="utf-8", errors="backslashreplace", timeout=self.timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            result = Result(told, -9, _text(late.stdout), _text(late.stderr))
            raise CommandFailed(result, f"killed after {self.timeout:g} s") from None
        result = Result(told, done.returncode, done.stdout, done.stderr)
        expected = {code} if isinstance(code, int) else code
        if expected is not None and result.code not in expected:
            raise CommandFailed(result, f"expected exit code {' or '.join(map(str, expected))}")
        return result

    def json(self, *args: str | Path, code: int | Collection[int] | None = 0) -> Any:
        """Run ``vbackup --json ARGS`` and return the document that it prints. Raises: `CommandFailed`."""
        return json.loads(self("--json", *args, code=code).stdout)

    def events(self, *args: str | Path, code: int | Collection[int] | None = 0) -> list[dict[str, Any]]:
        """Run ``vbackup --json ARGS`` and return what it prints line by line, as ``run`` does; the last is the report.

        Raises: `CommandFailed`.
        """
        return [json.loads(line) for line in self("--json", *args, code=code).stdout.splitlines()]


def configuration(
    directory: Path,
    hypervisor: Mapping[str, Any],
    *,
    transport: Mapping[str, Any] | None = None,
    target: Mapping[str, Any] | None = None,
    job: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the smallest configuration around what is under test.

    The entries ``hypervisor`` (called ``lab``), ``transport`` (``store``), ``target`` (``main``) and ``job``
    (``nightly``: all machines) are what stands in the YAML. Without ``transport`` it is a directory; ``target`` and
    ``job`` may be given in part, as in ``target={"codecs": [{"type": "mine"}]}`` for a repository with your codec.
    Key and store lie in ``directory``.
    """
    store = {"type": "local", "path": str(directory / "store")} if transport is None else dict(transport)
    main = {"type": "repository", **(target or {})}
    main.setdefault("transport", "store")
    if main["type"] == "repository":
        main.setdefault("key", {"file": str(directory / "main.key")})
    nightly = {"machines": ["lab:*"], "target": "main", "quiesce": "try", **(job or {})}
    return {
        "hypervisors": {"lab": dict(hypervisor)},
        "transports": {"store": store},
        "targets": {"main": main},
        "jobs": {"nightly": nightly},
    }


def _without_vbackup(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith("VBACKUP_")}


def _text(output: str | bytes | None) -> str:
    return output.decode("utf-8", "backslashreplace") if isinstance(output, bytes) else output or ""
