"""Names of functions: how they are found, what is refused, and what a program's own functions are called."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tests.unit.test_registry as this_module
from fairque.core.decorator import task
from fairque.core.exceptions import ConfigError, UnknownFunctionError
from fairque.core.registry import Registry, check_portable, default_registry, registered_name

ROOT = Path(__file__).parents[2]


def add_numbers(x: int, y: int) -> int:
    return x + y


def other() -> None: ...


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_function_is_known_by_its_module_and_qualified_name(registry: Registry) -> None:
    function = task(registry=registry)(add_numbers)

    assert function.name == f"{__name__}:add_numbers"
    assert registry.resolve(function.name) is function
    assert function.name in registry
    assert registry.names() == (function.name,)
    assert list(registry) == [function]


def test_a_name_of_its_own(registry: Registry) -> None:
    assert task(name="sums", registry=registry)(add_numbers).name == "sums"
    assert registry.names() == ("sums",)


def test_an_unknown_name_is_refused_with_the_nearest(registry: Registry) -> None:
    task(name="shop:send_mail", registry=registry)(other)

    with pytest.raises(UnknownFunctionError, match=r"'shop:sendmail'.*did you mean 'shop:send_mail'"):
        registry.resolve("shop:sendmail")
    with pytest.raises(UnknownFunctionError, match=r"import the module that defines it \(billing\)"):
        registry.resolve("billing:charge_the_customer")


def test_two_functions_with_one_name_are_refused(registry: Registry) -> None:
    task(name="x", registry=registry)(add_numbers)

    with pytest.raises(ConfigError, match=r"'x'.*add_numbers.*other.*name="):
        task(name="x", registry=registry)(other)


def test_two_definitions_of_one_name_in_a_file_are_refused(registry: Registry) -> None:
    def twice() -> None: ...

    first = twice

    def twice() -> None: ...  # type: ignore[no-redef]

    task(name="x", registry=registry)(first)
    with pytest.raises(ConfigError, match="'x'"):
        task(name="x", registry=registry)(twice)


def test_the_same_definition_again_replaces_itself(registry: Registry) -> None:
    def define() -> object:
        @task(name="x", registry=registry)
        def function() -> None: ...

        return function

    define()
    latest = define()

    assert registry.resolve("x") is latest


def test_what_no_worker_could_find_is_refused_with_the_way_out(registry: Registry) -> None:
    def local() -> None: ...

    with pytest.raises(ConfigError, match=r"local.*inside a function.*name="):
        task(registry=registry)(local)
    with pytest.raises(ConfigError, match=r"name="):
        task(registry=registry)(lambda: None)
    assert task(name="local", registry=registry)(local).name == "local"
    for name in ("", "x" * 256):
        with pytest.raises(ConfigError, match="255"):
            registered_name(other, name)


def test_registries_are_apart(registry: Registry) -> None:
    function = task(name="only here", registry=registry)(other)

    assert function.name not in default_registry()
    assert len(registry) == 1


def test_a_name_from_main_is_not_portable() -> None:
    with pytest.raises(UnknownFunctionError, match=r"resize\(\) is defined in a __main__.*name="):
        check_portable("__main__:resize")
    check_portable("app:resize")


PROGRAM = """
    from fairque.core.decorator import task

    @task
    def job(x: int) -> int:
        return x

    if __name__ == "__main__":
        print(job.name, job(2)())
"""


def run(*arguments: str, cwd: Path, stdin: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env={"PYTHONPATH": str(ROOT)}, input=stdin, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


def test_a_script_is_known_by_its_importable_name(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(textwrap.dedent(PROGRAM))

    assert run("shop.py", cwd=tmp_path) == "shop:job 2"


def test_a_module_that_is_run_is_known_by_its_full_name(tmp_path: Path) -> None:
    package = tmp_path / "store"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jobs.py").write_text(textwrap.dedent(PROGRAM))

    assert run("-m", "store.jobs", cwd=tmp_path) == "store.jobs:job 2"


def test_a_script_that_nobody_can_import_stays_main(tmp_path: Path) -> None:
    (tmp_path / "not-a-module.py").write_text(textwrap.dedent(PROGRAM))

    assert run("not-a-module.py", cwd=tmp_path) == "__main__:job 2"
    assert run("-", cwd=tmp_path, stdin=textwrap.dedent(PROGRAM)) == "__main__:job 2"


def test_a_spawned_child_knows_the_functions_by_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        textwrap.dedent("""
        import multiprocessing
        from fairque.core.decorator import task
        from fairque.core.registry import default_registry

        @task
        def job() -> None: ...

        def show() -> None:
            print(*default_registry().names())

        if __name__ == "__main__":
            child = multiprocessing.get_context("spawn").Process(target=show)
            child.start()
            child.join()
    """)
    )

    assert run("shop.py", cwd=tmp_path) == "shop:job"
    assert run("-m", "shop", cwd=tmp_path) == "shop:job"


def test_a_program_imported_again_under_its_own_name_is_no_second_function(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        textwrap.dedent(PROGRAM) + "    import shop\n    print(shop.job.name)\n"
    )

    assert run("shop.py", cwd=tmp_path) == "shop:job 2\nshop:job"


def test_this_module_is_imported_under_its_name() -> None:
    assert this_module.__name__ == "tests.unit.test_registry"
