"""The packages: each folder with an `__init__.py`, so that a new one needs no line here; the rest: pyproject.toml."""

from setuptools import find_packages, setup

ROOTS = {"graftline": "src/graftline", "graftline.components": "components", "graftline.pipelines": "pipelines"}
PACKAGES = [
    package
    for root, folder in ROOTS.items()
    for package in (root, *(f"{root}.{inner}" for inner in find_packages(folder)))
]

if __name__ == "__main__":
    setup(packages=PACKAGES)
