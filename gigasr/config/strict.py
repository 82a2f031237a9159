"""The base class of all config tables, and their validation."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from gigasr.config.errors import explain
from gigasr.config.renamed import rename_keys

T = TypeVar("T", bound=BaseModel)
OptionalStr = Annotated[str | None, AfterValidator(lambda name: name or None)]  # "" = None: TOML has no null


class FrozenModel(BaseModel):
    """A table of a config: immutable and without unknown keys.

    Earlier spellings of keys are accepted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def accept_renamed_keys(cls, data: Any) -> Any:
        """Accept the keys in files and weights of earlier versions."""
        return rename_keys(data)


def parse(model: type[T], data: dict[str, Any], source: str) -> T:
    """Validate the data of a table.

    Raises ValueError of one line: the source, then dotted path, rule and value of each error.

    source: name of the file in errors
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(explain(model, e) for e in error.errors())) from None
