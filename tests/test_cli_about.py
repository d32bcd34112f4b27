"""What vbackup says of itself and of where it runs: help, version, plugins, schema and doctor."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from tests.commandline import Vbackup, place, ready, vbackup
from vbackup import __version__
from vbackup.cli.main import COMMANDS

__all__ = ["place", "ready", "vbackup"]  # fixtures


def test_the_help_is_quick_as_it_imports_nothing_heavy() -> None:
    program = """
        import sys
        from vbackup.cli.main import execute
        assert execute(["--help"]) == 0
        heavy = {"pydantic", "rich", "pluggy", "ruamel.yaml", "vbackup.api", "vbackup.registry", "vbackup.config"}
        assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
    """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exit codes: 0 all done" in done.stdout


def test_version(vbackup: Vbackup) -> None:
    assert vbackup("--version") == (0, f"vbackup {__version__}\n", "")


def test_every_command_has_help(vbackup: Vbackup) -> None:
    for name in COMMANDS:
        outcome = vbackup(name, "--help")
        assert outcome.code == 0
        assert "--json" in outcome.out


PATH = {
    "key": "path",
    "type": "path",
    "required": True,
    "default": None,
    "meaning": "an absolute path; `vbackup init` makes the last directory of it",
}


def test_plugins_are_listed(vbackup: Vbackup) -> None:
    listed = {plugin["name"]: plugin for plugin in vbackup("plugins", "--json").json}
    assert listed["local"] == {
        "name": "local",
        "origin": "vbackup",
        "version": __version__,
        "module": "vbackup_local",
        "builtin": True,
        "status": "ok",
        "error": "",
        "api_version": None,
        "waits": False,
        "hooks": ["vbackup_register_transports"],
        "roles": {"transports": ["local"]},
        "options": {"transports": {"local": [PATH]}},
    }
    assert re.search(r"^local +built-in +ok +transports: local$", vbackup("plugins").out, re.MULTILINE)


def test_the_schema_is_printed(vbackup: Vbackup) -> None:
    assert vbackup("schema").json["title"] == "vbackup configuration"


def test_doctor_needs_no_configuration(place: Path, vbackup: Vbackup) -> None:
    (place / "vbackup.yaml").unlink()
    findings = vbackup("doctor", "--json").json
    assert findings[0]["what"] == "configuration"
    assert findings[0]["level"] == "ok"
    assert any(finding["what"] == "Python" for finding in findings)


def test_doctor_tells_of_mistakes_in_the_configuration_and_goes_on(place: Path, vbackup: Vbackup) -> None:
    (place / "vbackup.yaml").write_text("jobz: {}\n")
    outcome = vbackup("doctor")
    assert outcome.code == 1
    assert "error    configuration: vbackup.yaml:1:1: jobz: unknown key" in outcome.out
    assert "Python: " in outcome.out


def test_doctor_tells_what_is_wrong_by_its_exit_code(place: Path, ready: Vbackup) -> None:
    levels = {finding["level"] for finding in ready("doctor", "--json").json if "free space" not in finding["what"]}
    assert levels == {"ok"}
    (place / "main.key").chmod(0o644)
    outcome = ready("doctor")
    assert outcome.code == 3
    assert f"{'':8} -> chmod 600 {place}/main.key\n" in outcome.out
    (place / "store").rename(place / "elsewhere")
    assert ready("doctor").code == 1
