"""Secrets are references; their values show nowhere."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vbackup.api import ConfigError, Level, NotFound, SecretRef, Unavailable, VBackupError
from vbackup.api import secret as module
from vbackup.config import load, schema
from vbackup.registry import Registry

CANARY = "Kanarienvogel17"


def ref(**keys: Any) -> SecretRef:
    return SecretRef.model_validate(keys)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o600)
    return path


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VB_KEY", CANARY)
    assert ref(env="VB_KEY").resolve() == CANARY.encode()
    with pytest.raises(NotFound, match="the environment variable VB_OTHER, which should hold a secret, is not set"):
        ref(env="VB_OTHER").resolve()


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"x\n", b"x"),
        (b"x\r\n", b"x"),
        (b"x\n\n", b"x\n"),
        (b"x", b"x"),
        (b" x \n", b" x "),
        (b"\x00\xff", b"\x00\xff"),
    ],
)
def test_from_a_file_without_one_newline_at_its_end(tmp_path: Path, content: bytes, secret: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    assert ref(file=str(path)).resolve() == secret


def test_from_a_systemd_credential(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key_file.parent))
    assert ref(credential="key").resolve() == CANARY.encode()
    with pytest.raises(NotFound, match="the secret from credential other is not there"):
        ref(credential="other").resolve()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(NotFound, match="no credentials were given"):
        ref(credential="key").resolve()


@pytest.mark.parametrize("name", ["../key", "a/b", "..", ".hidden", ""])
def test_a_credential_cannot_name_another_directory(name: str) -> None:
    with pytest.raises(ValidationError):
        ref(credential=name)


def test_from_a_command_without_a_shell() -> None:
    program = "import sys; print(sys.argv[1])"
    assert ref(command=[sys.executable, "-c", program, "$HOME;`id`"]).resolve() == b"$HOME;`id`"


def test_a_command_that_fails_is_named_and_its_output_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    program = f"import sys; print({CANARY!r}); sys.exit({CANARY!r})"
    with pytest.raises(Unavailable, match="ended with exit code 1") as caught:
        ref(command=[sys.executable, "-c", program]).resolve()
    assert not caught.value.transient
    assert CANARY not in str(caught.value) + caplog.text
    with pytest.raises(NotFound, match="/no/such/program, which should print a secret, is not there"):
        ref(command=["/no/such/program"]).resolve()


def test_a_command_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMAND_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="took over"):
        ref(command=["sleep", "1000"]).resolve()


def test_nothing_and_too_much_are_no_secrets(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    with pytest.raises(ConfigError, match="is empty"):
        ref(file=str(path)).resolve()
    with pytest.raises(ConfigError, match="is larger than 64 KiB"):
        ref(file="/dev/zero").resolve()
    with pytest.raises(NotFound, match="is not there"):
        ref(file=str(tmp_path / "none")).resolve()
    with pytest.raises(ConfigError, match="Is a directory"):
        ref(file=str(tmp_path)).resolve()


def test_a_file_that_others_may_read_is_a_finding_and_a_warning(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = ref(file=str(key_file))
    assert secret.findings() == []
    key_file.chmod(0o604)
    (finding,) = secret.findings()
    assert finding.level is Level.WARNING
    assert finding.hint == f"chmod 600 {key_file}"
    assert secret.resolve() == CANARY.encode()
    assert "others may read it" in caplog.text
    assert CANARY not in caplog.text


LITERALS = {
    "literal": CANARY,
    "quoted": f"'{CANARY}'",
    "in a mapping": f"{{{CANARY}}}",
    "as a key": f"{{{CANARY}: x}}",
    "as a value of an unknown kind": f"{{password: {CANARY}}}",
    "in a list": f"[{CANARY}]",
    "with a star": f"*{CANARY}",
    "with an ampersand": f"&{CANARY}",
    "with an exclamation mark": f"!{CANARY}",
    "with an exclamation mark and space": f"!x {CANARY}",
    "with an at sign": f"@{CANARY}",
    "with a backtick": f"`{CANARY}",
    "with a percent sign": f"%{CANARY}",
    "with an open quote": f"'{CANARY}",
    "with an open bracket": f"{{file: {CANARY}",
    "with a colon": f"{CANARY}: {CANARY}",
    "with a brace": f"{CANARY}}}",
    "as text for a command": f"{{command: {CANARY}}}",
    "beside a file": f"{{file: /x, {CANARY}: 1}}",
    "twice": f"{{env: {CANARY}, env: {CANARY}}}",
    "with escapes": f'"\\{CANARY}"',
    "with a tag handle": f"!{CANARY}!x y",
}


@pytest.mark.parametrize("literal", LITERALS.values(), ids=LITERALS)
def test_a_secret_in_place_of_its_reference_is_refused_and_not_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, literal: str
) -> None:
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "vbackup.yaml"
    path.write_text(
        "transports: {d: {type: local, path: /x}}\ntargets:\n  m:\n    type: repository\n    transport: d\n"
        f"    key: {literal}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path, Registry.load())
    assert CANARY not in f"{caught.value} {caught.value!r} {caplog.text}"
    assert f"{path}:" in caught.value.message


def test_a_literal_is_told_to_be_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "vbackup.yaml"
    path.write_text("targets: {m: {type: repository, transport: d, key: hunter2}}\n")
    with pytest.raises(ConfigError, match=r"m\.key: must say where the secret is .*, never the secret itself"):
        load(path, Registry.load())


def test_the_value_of_a_secret_shows_nowhere(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("VB_KEY", CANARY)
    shown = []
    for secret in (ref(file=str(key_file)), ref(env="VB_KEY")):
        secret.resolve()
        shown += [repr(secret), str(secret), secret.model_dump_json()]
    registry = Registry.load()
    path = key_file.parent / "vbackup.yaml"
    path.write_text(
        "transports: {d: {type: local, path: /x}}\n"
        f"targets: {{m: {{type: repository, transport: d, key: {{file: {key_file}}}}}}}\n"
    )
    config = load(path, registry)
    config.targets["m"].key.resolve()
    shown += [repr(config), config.model_dump_json(), json.dumps(schema(registry)), caplog.text]
    assert CANARY not in " ".join(shown)
    assert "VB_KEY" in shown[3]


def test_errors_of_resolving_are_of_our_tree(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_text("not a program")
    path.chmod(0o700)
    with pytest.raises(VBackupError, match="cannot run: Exec format error"):
        ref(command=[str(path)]).resolve()
