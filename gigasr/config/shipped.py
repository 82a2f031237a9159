"""The configs that ship with the package, by name."""

from pathlib import Path


def config_folder() -> Path:
    """Return the folder of the shipped configs.

    The folder is in the installed package, or at the root of a checkout.
    """
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """List the shipped configs by name: "upsampler_lite", "ablation/05_matching_d"."""
    folder = config_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml"))


def find_config(name: str, folder: Path = Path(), key: str = "config") -> Path:
    """Find the file of a config by its path or, if the file is absent, by name.

    Raises ValueError for an unknown name.

    name:   path of a TOML file, or name of a shipped config
    folder: start of relative paths
    key:    name of the setting in the error
    """
    path = folder / name
    if path.is_file():
        return path
    names = config_names()
    if name in names:
        return config_folder() / f"{name}.toml"
    raise ValueError(f"{key}: expected a TOML file or one of {', '.join(names)}, got '{name}'; check the spelling")
