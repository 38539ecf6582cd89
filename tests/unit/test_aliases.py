import importlib
import sys

import pytest

import polos
import polos.types
from polos import aliases


@pytest.fixture(autouse=True)
def installed():
    aliases.install()


def real_names():
    return [(path, name, target) for path, names in aliases.ALIASES.items() for name, target in names.items()]


@pytest.mark.parametrize(("path", "name", "target"), real_names())
def test_an_alias_is_the_real_object(path, name, target):
    module, attribute = target.split(":")
    assert getattr(importlib.import_module(path), name) is getattr(importlib.import_module(module), attribute)


def test_every_way_to_import_works():
    import polos.core.workflow as whole
    from polos.core import workflow as module
    from polos.core.workflow import StepExecutionError

    assert whole is module is polos.core.workflow
    assert module.StepExecutionError is StepExecutionError is polos.errors.StepExecutionError


def test_a_path_below_a_plain_module_works():
    from polos.types.types import Step

    assert Step is polos.types.types.Step is polos.types.Step


def test_star_import_gives_the_listed_names():
    names: dict[str, object] = {}
    exec("from polos.core.workflow import *", names)
    assert aliases.ALIASES["polos.core.workflow"].keys() <= names.keys()


def test_dir_lists_the_names():
    assert {"Queue", "queue"} <= set(dir(importlib.import_module("polos.runtime.queue")))


def test_a_name_that_does_not_exist_is_an_import_error():
    with pytest.raises(ImportError, match=r"cannot import name 'nothing' from 'polos\.core\.step'"):
        from polos.core.step import nothing  # noqa: F401


def test_a_path_that_does_not_exist_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"polos\.runtime\.nothing"):
        importlib.import_module("polos.runtime.nothing")


def test_every_folder_of_a_path_exists():
    for path in aliases.ALIASES:
        parent = path.rpartition(".")[0]
        assert parent in aliases.ALIASES or importlib.util.find_spec(parent)


def test_installing_does_not_import_what_it_points_to():
    import subprocess

    code = "import sys, polos.aliases as a; a.install(); print([m for m in sys.modules if 'engine' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_installing_again_changes_nothing():
    before = sys.modules["polos.core.workflow"]
    aliases.install()
    assert sys.modules["polos.core.workflow"] is before


def test_finding_the_spec_of_an_alias_works():
    assert importlib.util.find_spec("polos.core.workflow").name == "polos.core.workflow"


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://localhost:8080", True),
        ("http://127.0.0.9", True),
        ("http://[::1]:8080/x", True),
        ("https://polos.example", False),
        ("http://localhost.example", False),
        ("", False),
    ],
)
def test_urls_of_this_machine_are_known(url: str, is_local: bool) -> None:
    from polos.utils import is_localhost_url

    assert is_localhost_url(url) is is_local
