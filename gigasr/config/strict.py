"""What every table of a config has, and how one is read."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from gigasr.config.errors import explain

T = TypeVar("T", bound=BaseModel)
Name = Annotated[str | None, AfterValidator(lambda name: name or None)]  # "" = None, for which TOML has no word


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def parse(model: type[T], data: dict[str, Any], source: str) -> T:
    """Validate, with errors in one line: the dotted path, the rule, what was given."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(explain(model, e) for e in error.errors())) from None
