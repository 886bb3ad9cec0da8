"""What is shipped: version, entry points, documentation, the sdist, and the check for optimisation."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import kprod

ROOT = Path(__file__).resolve().parent.parent.parent

# Wheels are tested with the tests alone: what concerns the source tree is tested where that is.
source_tree = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="runs in the source tree only")


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- Version and metadata -----------------------------------------------------------------------------------


def test_there_is_one_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", kprod.__version__)


@source_tree
def test_the_version_stands_in_one_place() -> None:
    version = re.escape(kprod.__version__)
    for file in ("pyproject.toml", "setup.py", "src/kprod/__init__.py"):
        assert not re.search(rf"version\s*=\s*.{version}", (ROOT / file).read_text(encoding="utf-8")), file
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{kprod.__version__}]" in changelog


def test_the_package_is_typed() -> None:
    assert kprod.__file__ is not None
    package = Path(kprod.__file__).parent
    assert (package / "py.typed").exists()
    modules = [file for file in (package / "_core").iterdir() if file.suffix in (".so", ".pyd")]
    assert modules
    for module in modules:
        stub = module.with_name(module.name.partition(".")[0] + ".pyi")
        assert stub.exists(), f"{module.name} has no {stub.name}"


def test_every_extension_module_can_be_imported() -> None:
    assert kprod.__file__ is not None
    for module in (Path(kprod.__file__).parent / "_core").iterdir():
        if module.suffix in (".so", ".pyd"):
            importlib.import_module(f"kprod._core.{module.name.partition('.')[0]}")


@source_tree
def test_no_variable_has_a_name_that_the_headers_of_windows_define() -> None:
    # windef.h and what it brings: with one of these as the name of a field, nothing compiles there.
    macros = re.compile(
        r"\b(near|far|small|hyper|interface|pascal|cdecl|rad[12]|IN|OUT|ERROR|DELETE|CONST|VOID)\b"
    )
    declaration = re.compile(
        r"^\s*(?:cdef\s+)?(?:inline\s+)?(?:const\s+)?[a-z_]\w*\s*\*{0,3}\s+\*{0,3}(\w+)\s*(?:$|=|\[|,|\s#)"
    )
    found = []
    for file in (ROOT / "src" / "kprod" / "_core").iterdir():
        if file.suffix in (".pxd", ".pyx", ".pxi"):
            for line in file.read_text(encoding="utf-8").splitlines():
                name = declaration.match(line)
                if name and macros.fullmatch(name[1]):
                    found.append(f"{file.name}: {line.strip()}")
    assert found == []


# --- Documentation ------------------------------------------------------------------------------------------


@source_tree
def test_the_documentation_of_the_options_is_up_to_date() -> None:
    tool = load_tool("generate_option_docs")
    assert tool.outdated() == [], "run tools/generate_option_docs.py"


@source_tree
def test_the_documentation_of_the_metrics_is_up_to_date() -> None:
    pytest.importorskip("prometheus_client", reason="wheels are tested without the extras")
    assert not load_tool("generate_metric_docs").outdated(), "run tools/generate_metric_docs.py"


@source_tree
def test_every_option_is_in_the_documentation() -> None:
    from kprod.config import NO_EFFECT, NOT_AVAILABLE, OPTIONS

    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    for name in (*OPTIONS, *NO_EFFECT, *NOT_AVAILABLE):
        assert f"`{name}`" in page, name


@source_tree
@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/migration.md",
        "docs/options.md",
        "docs/performance.md",
    ],
)
def test_links_lead_somewhere(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((ROOT / file).parent / target).exists(), f"{file} links to {target}"


@source_tree
def test_the_readme_opens_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first_block = readme.partition("```sh\n")[2].partition("```")[0]
    assert [line.split("#")[0].strip() for line in first_block.splitlines()] == ["make demo", "make test"]


@source_tree
@pytest.mark.parametrize("file", ["README.md", "docs/options.md"])
def test_python_in_the_documentation_compiles(file: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, file, "exec")


# --- sdist --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths of the files in the sdist, without its top folder."""
    # Not the package alone: a folder of this name is in every tree that was built in.
    pytest.importorskip("build.__main__", reason="wheels are tested without what builds them")
    folder = tmp_path_factory.mktemp("sdist")
    # From a copy: making an sdist writes into the tree, which other tests and builds look at.
    tree = folder / "tree"
    shutil.copytree(
        ROOT,
        tree,
        ignore=shutil.ignore_patterns(
            ".venv", ".git", ".kafka", "build", "dist", "*.egg-info", "__pycache__"
        ),
    )
    done = subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = folder.glob("kprod-*.tar.gz")
    assert archive.name == f"kprod-{kprod.__version__}.tar.gz"
    with tarfile.open(archive) as tar:
        return [name.partition("/")[2] for name in tar.getnames()]


@source_tree
def test_the_sdist_is_complete(sdist: list[str]) -> None:
    """Everything that is in the repository is in the sdist, except what serves the repository itself."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not tracked:  # unpacked from an sdist itself
        tracked = ["src/kprod/config.py", "tests/unit/test_packaging.py", "LICENSE"]
    own = (".github/", ".ci/", ".git")
    missing = [
        name for name in tracked if name not in sdist and not name.startswith(own) and (ROOT / name).exists()
    ]
    assert missing == []


@source_tree
def test_the_sdist_has_nothing_that_was_made(sdist: list[str]) -> None:
    made = [name for name in sdist if re.search(r"\.(so|pyd|pyc|o|html)$|__pycache__", name)]
    made += [name for name in sdist if re.fullmatch(r"src/kprod/_core/[^/]*\.c", name)]
    assert made == []


# --- Optimisation -------------------------------------------------------------------------------------------

TINY = """
int tiny_sum(const int *numbers, int count) {
    int sum = 0;
    for (int i = 0; i < count; i++) sum += numbers[i];
    return sum;
}
"""

records_flags = pytest.mark.skipif(sys.platform == "win32", reason="MSVC records no command lines in modules")


@pytest.fixture
def compile_tiny(tmp_path: Path) -> Callable[..., Path]:
    def compile_with(*flags: str) -> Path:
        source = tmp_path / "tiny.c"
        source.write_text(TINY)
        module = tmp_path / f"tiny{''.join(flags)}.so"
        compiler = (sysconfig.get_config_var("CC") or "cc").split()
        subprocess.run(
            [*compiler, "-shared", "-fPIC", "-g1", "-frecord-gcc-switches", "-fvisibility=hidden"]
            + [*flags, str(source), "-o", str(module)],
            check=True,
        )
        return module

    return compile_with


@records_flags
@pytest.mark.parametrize(
    ("flags", "level"),
    [
        (("-O3",), None),
        (("-O2",), None),
        (("-O0", "-O3"), None),
        (("-O0",), "-O0"),
        (("-O1",), "-O1"),
        (("-O3", "-O0"), "-O0"),
        ((), "-O0"),
    ],
)
def test_modules_that_are_not_optimised_are_found(
    compile_tiny: Callable[..., Path],
    flags: tuple[str, ...],
    level: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool = load_tool("check_optimised")
    module = compile_tiny(*flags)
    assert tool.main([str(module)]) == (0 if level is None else 1)
    said = capsys.readouterr().err
    assert said == "" if level is None else f"{module}: compiled with {level}" in said


@records_flags
def test_one_module_of_a_wheel_is_enough_to_fail(compile_tiny: Callable[..., Path], tmp_path: Path) -> None:
    tool = load_tool("check_optimised")
    wheel = tmp_path / "kprod-0-cp310-cp310-linux_x86_64.whl"
    for flags, result in ((("-O3",), 0), (("-O0",), 1)):
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.write(compile_tiny("-O2"), "kprod/_core/good.so")
            archive.write(compile_tiny(*flags), "kprod/_core/other.so")
        assert tool.main([str(wheel)]) == result


def test_a_module_that_records_nothing_fails_on_linux_only(tmp_path: Path) -> None:
    tool = load_tool("check_optimised")
    module = tmp_path / "silent.so"
    module.write_bytes(b"\x7fELF nothing to see")
    assert tool.main([str(module)]) == 1
    on_windows = tmp_path / "silent.pyd"
    on_windows.write_bytes(b"MZ nothing to see")
    assert tool.main([str(on_windows)]) == 0  # there --installed measures the speed


def test_a_wheel_without_modules_fails(tmp_path: Path) -> None:
    tool = load_tool("check_optimised")
    wheel = tmp_path / "kprod-0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("kprod/__init__.py", "")
    assert tool.main([str(wheel)]) == 1


def test_slow_code_is_found_by_its_speed() -> None:
    tool = load_tool("check_optimised")
    # Python code is slower than any compiled code, optimised or not.
    assert tool.speed_ratio(lambda block: sum(block)) < tool.LEAST_RATIO
