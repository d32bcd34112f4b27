"""``vbackup key``: the keys of targets. No secret is ever an argument: others could see it in the list of processes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.api import KeyRing, KeySlot

_PATH = click.Path(path_type=Path)
_STATES = {"good": "", "old": "made before the last rotation", "unknown": "this key cannot tell"}
_UNLESS = {"damaged": ", unless you can restore it", "forged": ", unless you can restore it"}


@click.group("key")
@json_option
def command() -> None:
    """List, add, remove, rotate, print and make keys."""


@command.command("list")
@click.argument("target", required=False)
@json_option
@click.pass_obj
def list_(state: State, target: str | None) -> int:
    """List the keys that TARGET opens with."""
    with state.site() as site:
        from vbackup.jobs.keys import key_ring, target_with_keys

        slots = key_ring(site, target_with_keys(site, target)).slots()
    if state.json:
        output.document([asdict(slot) for slot in slots])
    else:
        output.table(("ID", "TYPE", "MAY", "LABEL", "CREATED", "FINGERPRINT", "NOTE"), [_row(slot) for slot in slots])
    bad = [slot for slot in slots if slot.state in ("damaged", "forged", "removed")]
    for slot in bad:
        what = "was removed and is there again" if slot.state == "removed" else f"is {slot.state}"
        output.warning(f"key slot {slot.id[:8]} {what}: remove it{_UNLESS.get(slot.state, '')}")
    return 3 if bad else 0


def _row(slot: KeySlot) -> tuple[str, ...]:
    note = _STATES.get(slot.state, slot.state)
    notes = ", ".join(part for part in ("in use" if slot.in_use else "", note) if part)
    may = "" if slot.state == "damaged" else "read" if slot.may_read else "write"
    return (slot.id[:8], slot.type, may, slot.label, slot.created[:19], slot.fingerprint, notes)


def _name(slot: KeySlot) -> str:
    return " ".join(part for part in (slot.id[:8], slot.type, slot.label, slot.fingerprint) if part)


@command.command("add")
@click.argument("target", required=False)
@click.option("--passphrase", "source", flag_value="ask", help="A passphrase; it is asked for.")
@click.option("--passphrase-env", metavar="NAME", help="The passphrase in an environment variable.")
@click.option("--passphrase-file", type=_PATH, metavar="FILE", help="The passphrase in a file.")
@click.option("--key-file", type=_PATH, metavar="FILE", help="A key file; made if it is not there.")
@click.option("--recipient", type=_PATH, metavar="FILE", help="A public key (see `key generate`).")
@click.option("--label", default="", metavar="TEXT", help="What it is, for those who list it.")
@click.option("--write-only", is_flag=True, help="It may write, list and prune, and not read what was written.")
@json_option
@click.pass_obj
def add(
    state: State,
    target: str | None,
    source: str | None,
    passphrase_env: str | None,
    passphrase_file: Path | None,
    key_file: Path | None,
    recipient: Path | None,
    label: str,
    *,
    write_only: bool,
) -> None:
    """Let TARGET be opened with another key, beside those that it has."""
    if sum(each is not None for each in (source, passphrase_env, passphrase_file, key_file, recipient)) != 1:
        raise click.UsageError("Give one of --passphrase..., --key-file and --recipient.")
    with state.site() as site:
        from vbackup.jobs import keys

        ring = keys.key_ring(site, keys.target_with_keys(site, target))
        if recipient is not None:
            slot = keys.add_recipient(ring, recipient, label, read=not write_only)
        elif key_file is not None:
            slot = keys.add_key_file(ring, key_file, label, read=not write_only)
        else:
            slot = _add_passphrase(ring, passphrase_env, passphrase_file, label, read=not write_only)
    if state.json:
        output.document(asdict(slot))
    else:
        output.write(f"added {_name(slot)}, which may {'write' if write_only else 'read'}")


def _add_passphrase(ring: KeyRing, env: str | None, file: Path | None, label: str, *, read: bool) -> KeySlot:
    from vbackup.api import SecretRef
    from vbackup.jobs.keys import add_passphrase

    if env is not None or file is not None:
        passphrase = SecretRef(**({"env": env} if env is not None else {"file": file})).resolve()
    elif sys.stdin.isatty():
        asked: str = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
        passphrase = asked.encode()
    else:
        raise click.UsageError("There is no terminal to ask for a passphrase; use --passphrase-file.")
    return add_passphrase(ring, passphrase, label, read=read)


@command.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="[TARGET] SLOT")
@json_option
@click.pass_obj
def remove(state: State, names: tuple[str, ...]) -> None:
    """Remove the key SLOT (the beginning of its id) of TARGET.

    Who has that key may have kept what it opens: `key rotate` shuts them out from all that is written afterwards.
    """
    if len(names) > 2:
        raise click.UsageError("Give a target, if there are several, and one key slot.")
    with state.site() as site:
        from vbackup.jobs.keys import key_ring, target_with_keys

        alias = target_with_keys(site, names[0] if len(names) == 2 else None)
        slot = key_ring(site, alias).remove(names[-1])
    if state.json:
        output.document(asdict(slot))
    else:
        output.write(f"removed {_name(slot)}")


@command.command("rotate")
@click.argument("target", required=False)
@json_option
@click.pass_obj
def rotate(state: State, target: str | None) -> int:
    """Make a new key pair for all that is written to TARGET from now on.

    The key in use and all recipients get it. Other passphrases, key files and write-only keys are dropped and named:
    add them again.
    """
    with state.site() as site:
        from vbackup.jobs.keys import key_ring, target_with_keys

        done = key_ring(site, target_with_keys(site, target)).rotate()
    if state.json:
        output.document(asdict(done))
    else:
        for slot in done.sealed:
            output.write(f"has the new key pair: {_name(slot)}")
    for slot in done.dropped:
        output.warning(f"dropped {_name(slot)}: add it again with `vbackup key add`")
    for slot in done.left:
        output.warning(f"left alone {_name(slot)}, which is {slot.state}: remove it")
    return 3 if done.dropped or done.left else 0


@command.command("generate")
@click.argument("path", type=_PATH)
@json_option
@click.pass_obj
def generate(state: State, path: Path) -> None:
    """Make a private key in the file PATH, to be kept off line, and its public key in PATH.pub."""
    from vbackup.jobs.keys import generate as make

    public, mark = make(path)
    if state.json:
        output.document({"private": str(path), "public": str(public), "fingerprint": mark})
    else:
        output.write(f"made private key {path}: keep it off line, and a copy of it")
        output.write(f"made public key {public} ({mark}), for `recipients:` or `vbackup key add --recipient`")


@command.command("export")
@click.argument("target", required=False)
@click.option("--paper", type=_PATH, required=True, metavar="FILE", help="A new file, FILE.html or FILE.txt.")
@json_option
@click.pass_obj
def export(state: State, target: str | None, paper: Path) -> None:
    """Make a sheet to print, with a key of TARGET as text and QR code, and how to use it."""
    with state.site() as site:
        from vbackup.jobs import keys

        done = keys.export(site, keys.target_with_keys(site, target), paper)
    if state.json:
        output.document({"paper": str(done.path), "slot": asdict(done.slot) if done.slot else None})
    else:
        output.write(f"made {done.path}" + (f", with a new key: {_name(done.slot)}" if done.slot else ""))
    output.complain(f"{done.path} holds the key itself: print it, then delete it")


@command.command("import")
@click.argument("file", type=_PATH)
@click.argument("key_file", type=_PATH)
@json_option
@click.pass_obj
def import_(state: State, file: Path, key_file: Path) -> None:
    """Make KEY_FILE from a text FILE with the rows of a recovery sheet, typed as they are printed."""
    from vbackup.jobs.keys import import_sheet

    import_sheet(file, key_file)
    if state.json:
        output.document({"key_file": str(key_file)})
    else:
        output.write(f"made key file {key_file}")
