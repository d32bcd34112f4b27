"""``vbackup key``, and what other commands do with a key that only writes."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import segno

from tests.commandline import MIB, VBACKUP, Outcome, Vbackup, place, qemu, vbackup, write
from vbackup.api import ConfigError, Unsupported
from vbackup.cli.key import command
from vbackup.jobs.typed import parse_rows, rows_of
from vbackup.repository import keys
from vbackup.repository.keyring import fingerprint
from vbackup.repository.keys import new_key_file, new_private_key, parse_public_key

__all__ = ["place", "vbackup"]  # fixtures

NO_READING = "can write and not read"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PASSPHRASE", keys.Argon2(memory_kib=8, iterations=1, lanes=1))


def use(place: Path, key: Mapping[str, str], **options: Any) -> None:
    """Set the key of the target, and other options of it."""
    path = place / "vbackup.yaml"
    config = json.loads(path.read_text())
    config["targets"]["main"] |= {"key": dict(key), **options}
    path.write_text(json.dumps(config))


def slots(vbackup: Vbackup) -> dict[str, dict[str, Any]]:
    """The key slots by their labels."""
    return {slot["label"]: slot for slot in vbackup("key", "list", "--json").json}


@pytest.fixture
def writer(place: Path, vbackup: Vbackup) -> Vbackup:
    """A host that only writes, with one point; safe.key is the private key."""
    assert vbackup("key", "generate", "safe.key").code == 0
    use(place, {"file": str(place / "main.key")}, recipients=[str(place / "safe.key.pub")])
    assert vbackup("init").code == 0
    assert vbackup("run").code == 0
    return vbackup


# -- a key that only writes ---------------------------------------------------------------------------------------


def test_a_writer_runs_lists_protects_and_prunes(place: Path, writer: Vbackup) -> None:
    write(place / "web.qcow2", pattern=8, offset=MIB, length=MIB)
    run = writer("run", "--json")
    assert run.code == 0
    (machine,) = json.loads(run.out.splitlines()[-1])["machines"]
    assert machine["changed"] == MIB
    assert len(writer("list", "--json").json) == 2
    assert writer("protect", "web@latest").code == 0
    assert writer("unprotect", "web@latest").code == 0
    assert writer("delete", "web@latest").code == 0
    assert writer("prune").code == 0
    assert slots(writer)["init"]["may_read"] is False


def test_a_writer_is_told_what_it_cannot_do(place: Path, writer: Vbackup) -> None:
    before = sorted(each.name for each in place.iterdir())
    for args in (
        ("verify",),
        ("restore", "web@latest", "--disk", "disk0=out.raw"),
        ("restore", "web@latest", "--as", "copy"),
        ("key", "rotate"),
        ("key", "remove", "0"),
        ("key", "add", "--key-file", "reader.key"),
        ("key", "add", "--recipient", "safe.key.pub"),
        ("key", "export", "--paper", "key.txt"),
    ):
        refused = writer(*args)
        assert (refused.code, args) == (1, args)
        assert NO_READING in refused.err
        assert "hint: " in refused.err
        assert "Traceback" not in refused.err
        assert writer(*args, "--json").json["error"]["kind"] == "wrong-key"
    assert sorted(each.name for each in place.iterdir()) == before


def test_show_leaves_out_what_a_writer_cannot_read(place: Path, writer: Vbackup) -> None:
    shown = writer("show", "web@latest")
    assert shown.code == 3
    assert "disk disk0" in shown.out
    assert "hardware" not in shown.out
    assert NO_READING in shown.err
    document = writer("show", "web@latest", "--json").json
    assert document["description"] is None
    assert document["disks"][0]["size"] == 16 * MIB
    use(place, {"file": str(place / "safe.key")})
    assert writer("show", "web@latest").code == 0
    assert writer("show", "web@latest", "--json").json["description"]["name"] == "web"


def test_the_private_key_file_restores_what_the_writer_wrote(place: Path, writer: Vbackup) -> None:
    use(place, {"file": str(place / "safe.key")})
    assert writer("verify").code == 0
    restored = writer("restore", "web@latest", "--disk", "disk0=out.raw", "--format", "raw")
    assert restored.code == 0, restored.err
    qemu("img", "compare", "-f", "raw", "-F", "qcow2", "out.raw", "web.qcow2")
    own = [slot for slot in slots(writer).values() if slot["in_use"]]
    assert [(slot["type"], slot["label"], slot["may_read"]) for slot in own] == [("recipient", "safe.key.pub", True)]


# -- the commands -------------------------------------------------------------------------------------------------


@pytest.fixture
def ready(vbackup: Vbackup) -> Vbackup:
    assert vbackup("init").code == 0
    assert vbackup("run").code == 0
    return vbackup


def test_keys_are_added_listed_used_and_removed(place: Path, ready: Vbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDS", "correct horse battery staple")
    (place / "words").write_text("other words\n")
    assert ready("key", "generate", "safe.key").code == 0
    assert ready("key", "add", "--passphrase-env", "WORDS", "--label", "from  the\nenvironment").code == 0
    assert ready("key", "add", "main", "--passphrase-file", "words", "--label", "from a file").code == 0
    assert ready("key", "add", "--key-file", "new/other.key").code == 0
    assert ready("key", "add", "--key-file", "writer.key", "--write-only").code == 0
    assert ready("key", "add", "--recipient", "safe.key.pub").code == 0
    assert stat.S_IMODE((place / "new/other.key").stat().st_mode) == 0o600
    listed = slots(ready)
    assert {label: (slot["type"], slot["may_read"], slot["state"]) for label, slot in listed.items()} == {
        "init": ("key-file", True, "good"),
        "from the environment": ("passphrase", True, "good"),
        "from a file": ("passphrase", True, "good"),
        "other.key": ("key-file", True, "good"),
        "writer.key": ("key-file", False, "good"),
        "safe.key.pub": ("recipient", True, "good"),
    }
    table = ready("key", "list")
    assert table.code == 0
    assert re.search(r"^[0-9a-f]{8} +key-file +read +init .* in use$", table.out, re.MULTILINE)
    assert re.search(r"^[0-9a-f]{8} +key-file +write +writer.key ", table.out, re.MULTILINE)
    for key in ({"env": "WORDS"}, {"file": "words"}, {"file": "new/other.key"}, {"file": "safe.key"}):
        use(place, key)
        assert ready("verify").code == 0, key
    own = listed["safe.key.pub"]
    refused = ready("key", "remove", own["id"])
    assert refused.code == 2
    assert "in use" in refused.err
    gone = ready("key", "remove", "main", listed["init"]["id"][:8])
    assert gone.code == 0
    assert "removed" in gone.out
    use(place, {"file": str(place / "main.key")})
    assert ready("list").code == 1
    assert ready("list", "--json").json["error"]["kind"] == "wrong-key"


def test_rotate_says_what_it_kept_and_what_must_be_added_again(place: Path, ready: Vbackup) -> None:
    ready("key", "generate", "safe.key")
    ready("key", "add", "--recipient", "safe.key.pub")
    ready("key", "add", "--key-file", "writer.key", "--write-only")
    done = ready("key", "rotate")
    assert done.code == 3
    assert re.search(r"new key pair: [0-9a-f]{8} key-file init$", done.out, re.MULTILINE)
    assert re.search(r"new key pair: [0-9a-f]{8} recipient safe.key.pub [0-9a-f]{16}$", done.out, re.MULTILINE)
    assert re.search(r"warning: dropped [0-9a-f]{8} key-file writer.key: add it again", done.err)
    assert ready("key", "add", "--key-file", "writer.key", "--write-only").code == 0
    again = ready("key", "rotate", "--json")
    assert [slot["label"] for slot in again.json["dropped"]] == ["writer.key"]
    assert ready("key", "rotate").code == 0
    assert ready("verify").code == 0


def test_every_command_has_help(vbackup: Vbackup) -> None:
    for name in command.commands:
        outcome = vbackup("key", name, "--help")
        assert outcome.code == 0
        assert "--json" in outcome.out
    assert vbackup("key", "--json", "generate", "safe.key").json["private"] == "safe.key"


def test_generate_makes_a_pair_and_overwrites_nothing(place: Path, vbackup: Vbackup) -> None:
    made = vbackup("key", "generate", "safe.key", "--json").json
    private, public = (place / "safe.key").read_bytes(), (place / "safe.key.pub").read_bytes()
    assert private.startswith(b"VBACKUP-PRIVATE-1:")
    assert public.startswith(b"vbackup-public-1:")
    assert stat.S_IMODE((place / "safe.key").stat().st_mode) == 0o600
    assert made == {
        "private": "safe.key",
        "public": "safe.key.pub",
        "fingerprint": fingerprint(parse_public_key(public)),
    }
    assert vbackup("key", "generate", "safe.key").code == 1
    (place / "safe.key").rename("moved")
    refused = vbackup("key", "generate", "safe.key")
    assert refused.code == 1
    assert "safe.key.pub is there already" in refused.err
    assert (place / "safe.key.pub").read_bytes() == public
    assert not (place / "safe.key").exists()


def test_arguments_that_make_no_sense_start_nothing(place: Path, ready: Vbackup) -> None:
    (place / "words").write_text("some words")
    for args, message in (
        (("key", "add"), "Give one of"),
        (("key", "add", "--passphrase", "--key-file", "x.key"), "Give one of"),
        (("key", "add", "--passphrase"), "no terminal"),
        (("key", "add", "--key-file", "words"), "no key file"),
        (("key", "add", "--passphrase-file", "main.key"), "no passphrase"),
        (("key", "add", "--recipient", "words"), "words: this is no public key"),
        (("key", "add", "--key-file", "x.key", "--label", "x" * 129), "at most 128"),
        (("key", "remove", "a", "b", "c"), "one key slot"),
        (("key", "list", "nowhere"), "no target named"),
        (("key", "unlist"), "No such command"),
    ):
        refused = ready(*args)
        assert (refused.code, args) == (2, args)
        assert message in refused.err
    assert not (place / "x.key").exists()
    assert ready("key", "add", "--recipient", "missing.pub").code == 1
    assert len(slots(ready)) == 1


def test_the_only_target_with_keys_need_not_be_named(place: Path, ready: Vbackup) -> None:
    path = place / "vbackup.yaml"
    config = json.loads(path.read_text())
    config["targets"]["second"] = config["targets"]["main"] | {"transport": "disk"}
    path.write_text(json.dumps(config))
    refused = ready("key", "list")
    assert refused.code == 2
    assert "main, second" in refused.err
    assert ready("key", "list", "main").code == 0


def test_a_target_without_keys_says_so(place: Path, ready: Vbackup) -> None:
    path = place / "vbackup.yaml"
    config = json.loads(path.read_text())
    config["targets"]["plain"] = {"type": "image", "transport": "disk"}
    path.write_text(json.dumps(config))
    refused = ready("key", "list", "plain")
    assert refused.code == 1
    assert "plain (image) has no keys" in refused.err
    assert ready("key", "list", "plain", "--json").json["error"]["kind"] == "unsupported"


def test_a_passphrase_is_asked_for_twice_on_a_terminal(place: Path, ready: Vbackup) -> None:
    outcome = on_terminal(["key", "add", "--passphrase", "--label", "words"], ["correct horse", "correct horse"])
    assert outcome.code == 0, outcome.out
    assert "correct horse" not in outcome.out
    assert slots(ready)["words"]["type"] == "passphrase"
    (place / "words").write_text("correct horse\n")
    use(place, {"file": str(place / "words")})
    assert ready("verify").code == 0


def on_terminal(args: list[str], answers: list[str]) -> Outcome:
    """Run a command on a terminal of its own, and answer what it asks."""
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.execv(VBACKUP[0], [*VBACKUP, *args])
    seen = b""
    for answer in answers:
        while not seen.endswith(b": "):
            seen += os.read(terminal, 1024)
        os.write(terminal, answer.encode() + b"\n")
        seen += b"."
    try:
        while data := os.read(terminal, 1024):
            seen += data
    except OSError:  # Linux says EIO when the other side is closed
        pass
    return Outcome(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode(), "")


def test_bad_slots_are_shown_and_warned_of(place: Path, ready: Vbackup) -> None:
    ready("key", "add", "--key-file", "other.key")
    path = place / "store" / "keys" / slots(ready)["other.key"]["id"]
    path.write_bytes(path.read_bytes().replace(b"other.key", b"\\u001b[2Jyou"))
    listed = ready("key", "list")
    assert listed.code == 3
    assert "forged" in listed.out
    assert "\x1b" not in listed.out
    path.write_bytes(b"{}")
    assert "is damaged: remove it" in ready("key", "list").err
    assert ready("key", "remove", path.name).code == 0
    assert ready("key", "list").code == 0


# -- nothing secret is shown --------------------------------------------------------------------------------------


def test_no_output_has_a_secret_in_it(place: Path, ready: Vbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDS", "correct horse battery staple")
    monkeypatch.setenv("VBACKUP_DEBUG", "1")
    said = [ready("-vv", "key", "generate", "safe.key"), ready("-vv", "key", "add", "--passphrase-env", "WORDS")]
    said.append(ready("-vv", "key", "add", "--key-file", "other.key"))
    for args in (["list"], ["rotate"], ["export", "--paper", "key.html"], ["remove", "none"]):
        said += [ready("-vv", "key", *args), ready("-vv", "key", *args, "--json")]
    use(place, {"file": str(place / "safe.key")})
    said += [ready("-vv", "key", "list"), ready("-vv", "run"), ready("key", "add", "--key-file", "safe.key")]
    assert "Traceback" in "".join(outcome.err for outcome in said)
    secrets = [(place / name).read_text().strip() for name in ("main.key", "safe.key", "other.key")]
    secrets += [secret.partition(":")[2] for secret in secrets] + [os.environ["WORDS"]]
    for outcome in said:
        assert not [secret for secret in secrets if secret in outcome.out + outcome.err]


# -- paper --------------------------------------------------------------------------------------------------------


def drawn(text: str) -> list[list[int]]:
    """The matrix of the QR code that is drawn in a text, without its border."""
    lines = [line for line in text.splitlines() if set(line) <= set(" ▄▀█") and line.strip()]
    width = max(map(len, lines))
    rows: list[list[int]] = []
    for line in lines:
        cells = [" ▄▀█".index(char) for char in line.ljust(width)]
        rows += [[cell >> 1 for cell in cells], [cell & 1 for cell in cells]]
    used = [row for row in rows if any(row)]
    left = min(row.index(1) for row in used)
    return [row[left:] for row in used]


def test_a_sheet_of_text_has_the_key_as_code_and_as_rows(place: Path, ready: Vbackup) -> None:
    made = ready("key", "export", "--paper", "key.txt")
    assert made.code == 0
    assert "holds the key itself" in made.err
    assert stat.S_IMODE((place / "key.txt").stat().st_mode) == 0o600
    secret = (place / "main.key").read_text().strip()
    text = (place / "key.txt").read_text()
    assert secret in text.splitlines()
    assert str(place / "store") in text
    repository = json.loads((place / "store" / "repository").read_text())["id"]
    assert repository in text
    assert drawn(text) == [list(row) for row in segno.make_qr(secret, error="m").matrix]
    assert ready("key", "export", "--paper", "key.txt").code == 1
    assert ready("key", "import", "key.txt", "again.key").code == 0
    assert (place / "again.key").read_bytes() == (place / "main.key").read_bytes()
    assert stat.S_IMODE((place / "again.key").stat().st_mode) == 0o600
    assert ready("key", "import", "key.txt", "again.key").code == 1


def test_a_sheet_of_html_has_the_same(place: Path, ready: Vbackup) -> None:
    assert ready("key", "export", "main", "--paper", "key.html").code == 0
    text = (place / "key.html").read_text()
    secret = (place / "main.key").read_text().strip()
    assert f"<code>{secret}</code>" in text
    assert all(row in text for row in rows_of(secret.encode()))
    (path,) = re.findall(r'<path[^>]* d="([^"]+)"', text)
    import io

    expected = io.BytesIO()
    segno.make_qr(secret, error="m").save(expected, kind="svg", scale=5, xmldecl=False, svgns=False, nl=False)
    assert path in expected.getvalue().decode()
    assert ready("key", "export", "--paper", "key.pdf").code == 1
    assert not (place / "key.pdf").exists()


def test_the_sheet_of_a_passphrase_has_a_new_key_file(place: Path, ready: Vbackup) -> None:
    (place / "words").write_text("correct horse\n")
    ready("key", "add", "--passphrase-file", "words")
    use(place, {"file": str(place / "words")})
    made = ready("key", "export", "--paper", "key.txt", "--json")
    assert made.json["slot"]["type"] == "key-file"
    assert made.json["slot"]["label"].startswith("recovery sheet of ")
    assert "correct horse" not in (place / "key.txt").read_text()
    assert ready("key", "import", "key.txt", "paper.key").code == 0
    use(place, {"file": str(place / "paper.key")})
    assert ready("verify").code == 0


def test_the_sheet_of_a_private_key_opens_what_was_sealed_to_it(place: Path, writer: Vbackup) -> None:
    use(place, {"file": str(place / "safe.key")})
    assert writer("key", "export", "--paper", "key.txt", "--json").json == {"paper": "key.txt", "slot": None}
    assert writer("key", "import", "key.txt", "again.key").code == 0
    assert (place / "again.key").read_bytes() == (place / "safe.key").read_bytes()


@pytest.mark.parametrize(
    "secret", [new_key_file().strip(), new_private_key()[0].strip()], ids=["key-file", "private-key"]
)
def test_rows_are_typed_as_people_type_and_every_mistake_is_found(secret: bytes) -> None:
    rows = rows_of(secret)
    text = "\n".join(rows)
    assert parse_rows(text) == secret
    loose = text.lower().replace(" ", "").replace(":", " :  ").replace("o", "0").replace("i", "1").replace("b", "8")
    assert parse_rows(f"dear me,\r\n{loose}\r\n") == secret
    for number, row in enumerate(rows, 1):
        start = row.index(":") + 1
        for at in range(start, len(row)):
            if row[at] == " ":
                continue
            wrong = "A" if row[at] != "A" else "C"
            for mistyped in (row[:at] + wrong + row[at + 1 :], row[:at] + row[at + 1 :], row[:at] + "$" + row[at:]):
                with pytest.raises(ConfigError, match=f"row {number} of the key is mistyped"):
                    parse_rows(text.replace(row, mistyped))
    for broken in ([*rows[:-1]], [rows[1], rows[0], *rows[2:]], [rows[0], *rows[2:]], []):
        with pytest.raises(ConfigError, match=r"row \d of the key is missing|not complete"):
            parse_rows("\n".join(broken))


def test_what_is_no_key_file_is_not_printed() -> None:
    for secret in (b"correct horse", b"VBACKUP-KEY-1:not base64!", b"VBACKUP-KEY-1:"):
        with pytest.raises(Unsupported):
            rows_of(secret)


def test_a_bad_sheet_is_an_error_and_makes_no_file(place: Path, vbackup: Vbackup) -> None:
    (place / "typed").write_text("1: AAAA AAAA AAAA AAAA AAAA\n")
    refused = vbackup("key", "import", "typed", "out.key")
    assert refused.code == 2
    assert "row 1 of the key is mistyped" in refused.err
    (place / "typed").write_bytes(b"\xff\0" * 100_000)
    assert vbackup("key", "import", "typed", "out.key").code == 2
    assert vbackup("key", "import", "missing", "out.key").code == 1
    assert not (place / "out.key").exists()


def test_commands_that_need_no_repository_need_no_configuration(place: Path) -> None:
    (place / "vbackup.yaml").unlink()
    done = subprocess.run([*VBACKUP, "key", "generate", "safe.key"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (place / "safe.key.pub").exists()
