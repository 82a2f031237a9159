"""What every table of a config has, and how one is read."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from gigasr.config.errors import explain
from gigasr.config.renamed import rename_keys

T = TypeVar("T", bound=BaseModel)
OptionalStr = Annotated[str | None, AfterValidator(lambda name: name or None)]  # "" = None, for which TOML has no word


class FrozenModel(BaseModel):
    """A table of a config: immutable, without unknown keys; earlier spellings of keys are accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def accept_renamed_keys(cls, data: Any) -> Any:
        """Let files and weights of earlier versions keep their keys."""
        return rename_keys(data)


def parse(model: type[T], data: dict[str, Any], source: str) -> T:
    """Validate, with errors in one line: the dotted path, the rule, what was given."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(explain(model, e) for e in error.errors())) from None
