"""What people have marked machines with: tags (vCenter's REST API) and custom attributes."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter
from pyVmomi import vim

from vbackup.api import NotFound, Unavailable, VBackupError
from vbackup_vsphere.login import Unauthorized
from vbackup_vsphere.properties import Row, moid
from vbackup_vsphere.session import Session

Labels = frozenset[tuple[str, str]]
_BATCH = 500
T = TypeVar("T")


class _Object(BaseModel):
    id: str


class _Attached(BaseModel):
    object_id: _Object
    tag_ids: list[str] | None


class _Category(BaseModel):
    name: str


class _Tag(_Category):
    category_id: str


def labels(session: Session, rows: list[Row]) -> dict[str, Labels]:
    """Return the labels of machines by their ids: ``("tag", "category/name")`` and ``(attribute, value)``.

    Raises: `AccessDenied`, `Unavailable`. A tag that cannot be read might be what a machine is chosen by: no machine
    may be left out for that in silence.
    """
    found: dict[str, set[tuple[str, str]]] = {moid(ref): set() for ref, _ in rows}
    names = _attributes(session)
    for ref, row in rows:
        for value in row.get("customValue", ()):
            if value.key in names and isinstance(value, vim.CustomFieldsManager.StringValue):
                found[moid(ref)].add((names[value.key], value.value))
    for machine, tag in _tags(session, list(found)):
        found.setdefault(machine, set()).add(("tag", tag))
    return {machine: frozenset(some) for machine, some in found.items()}


def _attributes(session: Session) -> dict[int, str]:
    manager = session.content.customFieldsManager  # stand-alone hosts have none
    if manager is None:
        return {}
    fields = session.get(manager, "field").get("field", ())
    return {one.key: one.name for one in fields if one.managedObjectType in {None, vim.VirtualMachine}}


def _tags(session: Session, moids: list[str]) -> Iterator[tuple[str, str]]:
    if not session.is_vcenter or not moids:
        return
    with _rest(session) as rest:
        if rest is None:
            return
        names: dict[str, str] = {}
        for start in range(0, len(moids), _BATCH):
            batch = [{"id": moid, "type": "VirtualMachine"} for moid in moids[start : start + _BATCH]]
            for attached in rest.attached(batch):
                for tag in attached.tag_ids or ():
                    if tag not in names:
                        names[tag] = rest.name_of(tag)
                    yield attached.object_id.id, names[tag]


@contextmanager
def _rest(session: Session) -> Iterator[_Rest | None]:
    """Give a session with the REST API, ``/api`` of vSphere 7 and later or ``/rest``; None where there is none."""
    for flavour in (_Rest, _OldRest):
        rest = flavour(session)
        try:
            rest.log_in()
        except NotFound:
            continue
        try:
            yield rest
        finally:
            with suppress(VBackupError):
                rest.log_out()
        return
    yield None


class _Rest:
    """The tags by ``/api``."""

    _login = "/api/session"
    _attached = "/api/cis/tagging/tag-association?action=list-attached-tags-on-objects"
    _tag = "/api/cis/tagging/tag/"
    _category = "/api/cis/tagging/category/"

    def __init__(self, session: Session) -> None:
        self._session = session
        self._id = ""
        self._categories: dict[str, str] = {}

    def log_in(self) -> None:
        """Raises: `NotFound` when this API is not there."""
        user, password, _ = self._session.vddk_credentials()
        self._session.rest_refused.check(password)
        basic = b64encode(user.encode() + b":" + password).decode()
        try:
            self._id = self._ask(str, "POST", self._login, {"Authorization": f"Basic {basic}"})
        except Unauthorized as error:
            self._session.rest_refused.remember(password, error)
            raise

    def log_out(self) -> None:
        """End the session, which would stay for hours."""
        self._send("DELETE", self._login)

    def attached(self, objects: list[dict[str, str]]) -> list[_Attached]:
        """Return the tags of those that have some."""
        return self._ask(list[_Attached], "POST", self._attached, body={"object_ids": objects})

    def name_of(self, tag: str) -> str:
        """Return ``category/name``."""
        one = self._ask(_Tag, "GET", self._tag + quote(tag, safe=":"))
        category = one.category_id
        if category not in self._categories:
            asked = self._ask(_Category, "GET", self._category + quote(category, safe=":"))
            self._categories[category] = asked.name
        return f"{self._categories[category]}/{one.name}"

    def _ask(self, kind: type[T], method: str, path: str, headers: dict[str, str] | None = None, body: Any = None) -> T:
        text = self._send(method, path, headers, body)
        try:
            return TypeAdapter(kind).validate_python(self._value(json.loads(text)))
        except ValueError:  # pydantic's too; from None, for it quotes what may be the key of a session
            raise Unavailable(f"{self._session.alias}: {path} answers what we do not understand") from None

    def _send(self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None) -> bytes:
        sent = {"vmware-api-session-id": self._id} if self._id else {}
        sent |= {"Content-Type": "application/json", **(headers or {})}
        data = json.dumps(body).encode() if body is not None else None
        with self._session.open(method, path, headers=sent, body=data) as answer:
            return answer.read()

    def _value(self, answer: Any) -> Any:
        return answer


class _OldRest(_Rest):
    """The tags by ``/rest``."""

    _login = "/rest/com/vmware/cis/session"
    _attached = "/rest/com/vmware/cis/tagging/tag-association?~action=list-attached-tags-on-objects"
    _tag = "/rest/com/vmware/cis/tagging/tag/id:"
    _category = "/rest/com/vmware/cis/tagging/category/id:"

    def _value(self, answer: Any) -> Any:
        return answer["value"] if isinstance(answer, dict) and "value" in answer else answer
