"""Each hook, and each member of each role, is on its page with just the signature that the code has.

On ``hooks.md`` a hook is a heading ``## hook(arguments)``. On a role's page a class is a heading ``## Class``, and a
member a heading ``### member``, or a bullet above the first of these. The signature, as code, is what comes right below
the heading, or begins the bullet: `put(key: str) -> None` of a method, `root: Path | None` of an attribute or property.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

import vbackup.api
import vbackup.testing
from vbackup.api import hooks

PAGES = Path(__file__).parents[2] / "vbackup/docs/plugins"
HEADING = re.compile(r"^(#{2,3}) +`?(.+?)`?\n+(?:`([^`\n]+)`)?", re.MULTILINE)
BULLET = re.compile(r"^\* `((\w+)[(:][^`\n]*)`", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)

ROLES = {
    "transport.md": ("Transport",),
    "codec.md": ("Codec", "CodecContext"),
    "hypervisor.md": (
        "Hypervisor", "HypervisorContext", "CaptureRequest", "Capture", "SourceDisk", "RestoreRequest", "RestoreDisk",
        "Restoration", "SinkDisk",
    ),
    "target.md": ("Target", "TargetContext", "Writer", "DiskWriter", "Exchanger", "KeyHolder", "KeyRing"),
    "executor.md": ("Executor", "Task"),
    "events.md": ("JobEvent", "JobStarted", "JobProgress", "JobFinished", "DiskProgress"),
    "commands.md": ("CommandContext",),
}  # fmt: skip


def body(cls: type) -> list[ast.stmt]:
    tree = ast.parse(dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return tree.body


def members(cls: type) -> dict[str, str]:
    """Return the signature of each public member of a class, and of its constructor."""
    found: dict[str, str] = {}
    for node in body(cls):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = f"{node.target.id}: {ast.unparse(node.annotation)}"
        elif isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
            is_property = any(ast.unparse(decorator) == "property" for decorator in node.decorator_list)
            found[node.name] = f"{node.name}: {ast.unparse(node.returns)}" if is_property else signature(node)
    return found


def signature(function: ast.FunctionDef) -> str:
    """Return a method's name, arguments and what it returns, in one spelling; `self` is left out."""
    arguments = function.args
    if arguments.args and arguments.args[0].arg == "self":
        arguments.args = arguments.args[1:]
    result = ast.unparse(function.returns) if function.returns else "None"
    return f"{function.name}({ast.unparse(arguments)}) -> {result}"


def spelled(documented: str) -> str:
    """Return what a page says in the spelling of `signature`."""
    try:
        function = ast.parse(f"def {documented}: ...").body[0]
    except SyntaxError:
        return documented
    return signature(function) if isinstance(function, ast.FunctionDef) else documented


def hook_signatures() -> dict[str, str]:
    return {name: text for name, text in members(hooks.Hooks).items() if name.startswith("vbackup_")}


def sections(text: str) -> list[tuple[str, str, str]]:
    """Return each heading's marks and text, and the code right below it."""
    return [(found[1], found[2], found[3] or "") for found in HEADING.finditer(FENCED.sub("", text))]


def hook_problems(text: str, expected: Mapping[str, str]) -> list[str]:
    """Compare the page of the hooks with the code."""
    problems, seen = [], []
    for _, heading, code in sections(text):
        name = heading.partition("(")[0]
        if not name.startswith("vbackup_"):
            continue
        seen.append(name)
        if name not in expected:
            problems.append(f"{name} is no hook")
            continue
        plain = re.sub(r": [^,]+?(?=, |\)$)", "", expected[name].partition(" -> ")[0])
        if heading != plain:
            problems.append(f"the heading is {heading}, and the hook {plain}")
        if spelled(code) != expected[name]:
            problems.append(f"{code!r} is said where the hook is {expected[name]!r}")
    problems += [f"{name} is said {seen.count(name)} times" for name in expected if seen.count(name) != 1]
    return problems


def role_problems(text: str, classes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Compare a role's page with its classes."""
    problems: list[str] = []
    said: dict[str, dict[str, str]] = {}
    for part in re.split(r"^(?=## )", FENCED.sub("", text), flags=re.MULTILINE)[1:]:
        (_, name, _), *headings = sections(part)
        above = part.partition("\n### ")[0]
        said[name] = {heading: spelled(code) for _, heading, code in headings}
        said[name] |= {found[2]: spelled(found[1]) for found in BULLET.finditer(above)}
    for name, expected in classes.items():
        documented = said.get(name, {})
        problems += [f"{name}.{each} is not there" for each in expected.keys() - documented.keys()]
        problems += [f"{name} has no {each}" for each in documented.keys() - expected.keys()]
        problems += [
            f"{name}.{each}: {documented[each]!r} is said where it is {expected[each]!r}"
            for each in expected.keys() & documented.keys()
            if documented[each] != expected[each]
        ]
    return problems


def of_page(page: str) -> dict[str, dict[str, str]]:
    return {name: members(getattr(vbackup.api, name, None) or _optional(name)) for name in ROLES[page]}


def _optional(name: str) -> type:
    return next(
        getattr(module, name)
        for module in (importlib.import_module(f"vbackup.api.{each}") for each in ("command", "exchange", "keys"))
        if hasattr(module, name)
    )


def test_every_hook_is_documented_as_it_is() -> None:
    assert hook_problems((PAGES / "hooks.md").read_text(), hook_signatures()) == []


@pytest.mark.parametrize("page", ROLES)
def test_every_member_of_a_role_is_documented_as_it_is(page: str) -> None:
    assert role_problems((PAGES / page).read_text(), of_page(page)) == []


def test_every_protocol_of_the_api_has_its_page() -> None:
    """But those of the functions that plugins are given, and of what only a repair sees."""
    protocols = {name for name in vbackup.api.__all__ if getattr(getattr(vbackup.api, name), "_is_protocol", False)}
    assert protocols - {name for classes in ROLES.values() for name in classes} == {"Register", "Elsewhere"}


def test_the_reference_has_every_module_of_the_api() -> None:
    text = (PAGES / "api.md").read_text()
    modules = {f"vbackup.api.{path.stem}" for path in Path(vbackup.api.__file__).parent.glob("[a-z]*.py")}
    assert {module for module in modules if f"automodule:: {module}\n" not in text} == set()


def kit() -> set[str]:
    """Return the names of all contract suites and fixtures."""
    place = Path(vbackup.testing.__file__).parent
    contracts = [importlib.import_module(f"vbackup.testing.{path.stem}") for path in place.glob("*_contract*")]
    named = {name for contract in contracts for name in getattr(contract, "__all__", vars(contract))}
    suites = {name for name in named if name.endswith("Contract")}
    modules = [importlib.import_module(f"vbackup.testing.{name}") for name in ("plugin", "lab.fixtures")]
    fixtures = {
        node.name
        for module in modules
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(each) for each in node.decorator_list)
    }
    return suites | fixtures


def test_every_piece_of_the_kit_is_named() -> None:
    text = (PAGES / "testing.md").read_text()
    assert {name for name in kit() if name not in text} == set()


WRONG: dict[str, Callable[[str], str]] = {
    "a hook is missing": lambda text: text.replace("## vbackup_job_started(event)", "## Something else"),
    "it is said twice": lambda text: text + text,
    "it was renamed": lambda text: text.replace("vbackup_job_started", "vbackup_job_begun"),
    "it has another argument": lambda text: text.replace("vbackup_job_started(event)", "vbackup_job_started(job)"),
    "it has another type": lambda text: text.replace("event: JobStarted", "event: JobFinished"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_wrong_page_of_hooks_is_noticed(change: Callable[[str], str]) -> None:
    text = (PAGES / "hooks.md").read_text()
    assert change(text) != text
    assert hook_problems(change(text), hook_signatures())


CHANGED: dict[str, Callable[[str], str]] = {
    "a method is missing": lambda text: text.replace("### delete\n", "#### delete\n"),
    "there is one too many": lambda text: text.replace("### delete\n", "### rename\n\n`rename()`\n\n### delete\n"),
    "a default is another": lambda text: text.replace("offset: int = 0", "offset: int = 1"),
    "a type is another": lambda text: text.replace("`root: Path | None`", "`root: Path`"),
    "no signature follows": lambda text: text.replace("`close() -> None`\n", ""),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_a_wrong_page_of_a_role_is_noticed(change: Callable[[str], str]) -> None:
    text = (PAGES / "transport.md").read_text()
    assert change(text) != text
    assert role_problems(change(text), of_page("transport.md"))
