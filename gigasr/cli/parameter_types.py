"""Parameter types: a choice, lists of words, lists of numbers."""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click


class Choice(click.Choice[str]):
    """One of several values of any type."""

    def __init__(self, values: Sequence[Any]) -> None:
        super().__init__([str(value) for value in values])
        self.values = {str(value): value for value in values}

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """'16' -> 16, if 16 is one of the values"""
        return self.values[super().convert(value, param, context)]


class Several(click.ParamType):
    """Words with commas between them; a word may name a group of words."""

    def __init__(
        self, words: tuple[str, ...], groups: dict[str, tuple[str, ...]] | None = None, has_folders: bool = False
    ) -> None:
        """Set the words, their groups and folders.

        groups:      word -> the words of its group
        has_folders: also accept folders; ./NAME means a folder named like a word
        """
        self.words, self.groups, self.has_folders = words, groups or {}, has_folders
        self.name = "WORDS|FOLDERS" if has_folders else "WORDS"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> tuple[str, ...]:
        """'a,b' -> ('a', 'b'), each word once"""
        parts = [value] if self._is_folder(value) else value.split(",")
        found = [word for part in parts for word in self.groups.get(part, (part,))]
        for word in found:
            if word not in self.words and not self._is_folder(word):
                expected = ", ".join((*self.words, *self.groups))
                if self.has_folders:
                    expected += " or a folder"
                self.fail(f"expected {expected}; got '{word}'", param, context)
        return tuple(dict.fromkeys(found))

    def _is_folder(self, value: str) -> bool:
        return self.has_folders and os.path.isdir(value)


class Truncations(click.ParamType):
    """Numbers in 0..1, with commas between them."""

    name = "NUMBERS"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> tuple[float, ...]:
        """'1,0.5' -> (1.0, 0.5)"""
        with suppress(ValueError):
            found = tuple(map(float, value.split(",")))
            if all(0 <= number <= 1 for number in found):
                return found
        self.fail(f"expected numbers of 0 to 1, e.g. 1,0.7,0.4; got '{value}'", param, context)
