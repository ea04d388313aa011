# SPDX-License-Identifier: MIT
"""``pyuio new``: a package for a driver of one's own.

``template/`` is such a package, as it stands: this renames its sampler. Its files name no licence, as that is for their
new owner to choose.
"""

from __future__ import annotations

import ast
import keyword
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from pyuio.cli.output import say

app = typer.Typer()

TEMPLATE = Path(__file__).with_name("template")
FILES = (
    ".github/workflows/test.yml",
    ".gitignore",
    "README.md",
    "pyproject.toml",
    "sampler/__init__.py",
    "sampler/driver.py",
    "sampler/model.py",
    "sampler/py.typed",
    "sampler/registers.py",
    "tests/test_sampler.py",
)
EPILOG = (
    "The package has the registers, the driver, a model of the card, tests that pass on the model, pyproject.toml and "
    "a workflow for continuous integration. Its card is an example to be replaced: README.md says in which order."
)
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_TAKEN = {"pyuio", "pyuio_drivers", "pyuio_benchmarks", "pytest", "test", "tests"}


def _package(name: str) -> str:
    """Return the name of the package for a name as it was given. ValueError: it is none."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a driver: it has small letters, digits, and single - or _ between them, "
            "as in frame-counter"
        )
    package = name.replace("-", "_")
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        raise ValueError(f"{name!r} is a keyword of Python; take another name")
    if package in _TAKEN or package in sys.stdlib_module_names:
        raise ValueError(f"there is a package {package!r} already, which yours would hide; take another name")
    if (kind := _kind(package)) in _imported():
        raise ValueError(f"the driver would be the class {kind}, and uses another of that name; take another name")
    return package


def _kind(package: str) -> str:
    """Return the name of the driver's class."""
    return "".join(word.capitalize() for word in package.split("_"))


def _imported() -> set[str]:
    """Return the names that the package's modules import."""
    trees = [ast.parse((TEMPLATE / file).read_text()) for file in FILES if file.endswith(".py")]
    statements = [node for tree in trees for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {alias.asname or alias.name for statement in statements for alias in statement.names} - {"Sampler"}


def _write(package: str, directory: Path) -> None:
    """Write the package into an empty directory."""
    from pyuio import __version__

    kind = _kind(package)
    project = package.replace("_", "-")
    for file in FILES:
        target = directory / file.replace("sampler", package)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (TEMPLATE / file).read_text().replace("sampler", package).replace("Sampler", kind)
        if file == "pyproject.toml":
            text = text.replace(f'name = "{package}"', f'name = "{project}"', 1)
            text = re.sub(r"(?<=pyuio-framework>=)[0-9.]+", __version__, text)
        target.write_text(text)


@app.command(epilog=EPILOG)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the driver, and of its directory: frame-counter.")],
) -> None:
    """Write a package for a driver of your own.

    It goes into the directory NAME, which must not exist.
    """
    try:
        package = _package(name)
        target = Path(name)
        if os.path.lexists(target):
            raise ValueError(f"{target.absolute()} exists already; remove it, or take another name")
    except ValueError as error:
        say(error)
        raise typer.Exit(2) from error
    try:
        # Complete or not at all: whatever happens meanwhile, no half of a package has the name.
        whole = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        try:
            _write(package, whole)
            whole.chmod(0o777 & ~_umask())
            whole.rename(target)
        except BaseException:
            shutil.rmtree(whole, ignore_errors=True)
            raise
    except OSError as error:
        say(f"{target.absolute()} cannot be written: {error}")
        raise typer.Exit(1) from error
    print(f"{target}/ is a driver with a model of its card. Try it:")
    print(f"  cd {target} && python -m pytest")
    print("README.md says how to make it yours.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
