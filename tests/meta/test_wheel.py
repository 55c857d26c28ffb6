"""The wheel holds the package with its built-ins, and works away from the clone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, code: str, cwd: Path) -> str:
    environment = {"PYTHONPATH": str(installed), "PATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_built_in_subjects_and_dictionaries_are_found(installed: Path, tmp_path: Path) -> None:
    code = """
import sae, sae.builtin
assert sae.__file__.startswith(__import__("os").environ["PYTHONPATH"]), sae.__file__
dictionary = sae.load_dictionary("builtin:stdlib-1l/blocks.0.mlp.hook_post")
for kind in ("stdlib-1l", "concepts-clip-rn"):
    print(kind, len(sae.load_subject(f"builtin:{kind}").hookpoints()), dictionary.d_sae)
"""
    lines = run(installed, code, tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["stdlib-1l", "concepts-clip-rn"]
    assert all(int(line.split()[1]) > 3 for line in lines)


def test_data_files_of_the_package_are_inside(installed: Path) -> None:
    for path in (ROOT / "sae").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (installed / path.relative_to(ROOT)).is_file(), path
