"""The package's types, as a user's type checker sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kprod

HERE = Path(__file__).parent
PACKAGE = Path(kprod.__file__).parent
EXTENSIONS = sorted(path.stem for path in (PACKAGE / "_core").glob("*.pyi"))


def run(module: str, *arguments: str) -> str:
    environment = {**os.environ, "MYPYPATH": str(PACKAGE.parent), "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def mypy(path: Path) -> str:
    return run("mypy", "--strict", "--warn-unused-ignores", "--config-file", os.devnull, str(path))


def test_mypy_accepts_what_is_right_in_the_examples_and_refuses_what_is_wrong() -> None:
    output = mypy(HERE / "examples.py")
    assert "Success" in output, output


def test_mypy_knows_what_a_future_gives(tmp_path: Path) -> None:
    # The examples would pass too if everything were Any.
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import kprod\nx: int = kprod.KafkaProducer().send('t', b'v').get()\n")
    assert "RecordMetadata" in mypy(wrong)


def test_every_extension_module_has_a_stub() -> None:
    assert sorted(path.stem for path in (PACKAGE / "_core").glob("*.pyx")) in ([], EXTENSIONS)
    assert len(EXTENSIONS) >= 12


def test_stubs_of_extension_modules_agree_with_what_is_compiled() -> None:
    output = run(
        "mypy.stubtest",
        "--concise",
        "--allowlist=stubtest_allowlist.txt",
        *(f"kprod._core.{name}" for name in EXTENSIONS),
    )
    assert not output.strip(), output
