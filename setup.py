"""The list of packages; pyproject.toml says everything else.

pyproject.toml can list every package or find those below one folder; configs/ is beside that folder's packages.
Folders of data, such as gigasr/weights, count as packages.
"""

from setuptools import find_namespace_packages, setup

setup(packages=[*find_namespace_packages(include=["gigasr*"]), "gigasr.configs", "gigasr.configs.ablation"])
