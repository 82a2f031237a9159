"""Types of options that hold several words or numbers."""

from contextlib import suppress

import click


class Several(click.ParamType):
    """Words of a list, with commas between them; some words may stand for several."""

    def __init__(self, words: tuple[str, ...], groups: dict[str, tuple[str, ...]] | None = None) -> None:
        self.words, self.groups, self.name = words, groups or {}, "WORDS"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> tuple[str, ...]:
        """'a,b' -> ('a', 'b'), each word once"""
        found = [word for part in value.split(",") for word in self.groups.get(part, (part,))]
        for word in found:
            if word not in self.words:
                self.fail(f"expected {', '.join((*self.words, *self.groups))}; got '{word}'", param, context)
        return tuple(dict.fromkeys(found))


class Truncations(click.ParamType):
    """Numbers of 0..1, with commas between them."""

    name = "NUMBERS"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> tuple[float, ...]:
        """'1,0.5' -> (1.0, 0.5)"""
        with suppress(ValueError):
            found = tuple(map(float, value.split(",")))
            if all(0 <= number <= 1 for number in found):
                return found
        self.fail(f"expected numbers of 0 to 1, e.g. 1,0.7,0.4; got '{value}'", param, context)
