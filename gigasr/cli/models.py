"""gigasr models: list, describe, fetch and convert models."""

from pathlib import Path

import click

from gigasr.cli.common import check_absent, report_errors


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that ship with the package; or look at, fetch or convert one.

    \b
    Examples:
      gigasr models
      gigasr models info 4x_something.pth
      gigasr models fetch fal/AuraSR-v2
      gigasr models convert upsampler_lite lite.pth
    """
    if context.invoked_subcommand is None:
        context.invoke(list_models)


@models.command("list")
@report_errors
def list_models() -> None:
    """Names and sizes of the bundled models."""
    from gigasr.models.zoo import WEIGHTS, bundled_models
    from gigasr_base.zoo import BASE_WEIGHTS, bundled_base_models

    for folder, names in ((WEIGHTS, bundled_models()), (BASE_WEIGHTS, bundled_base_models())):
        for name in names:
            size = (folder / f"{name}.safetensors").stat().st_size
            click.echo(f"{name}  {size / 1e6:.1f} MB")


@models.command()
@click.argument("model")
@report_errors
def info(model: str) -> None:
    """Describe MODEL: a bundled name, a file, a folder or a Hugging Face id."""
    from gigasr.models.zoo import describe_weights

    for name, text in describe_weights(locate(model)).items():
        click.echo(f"{name:<12}{text}")


@models.command()
@click.argument("name")
@report_errors
def fetch(name: str) -> None:
    """Download a model from the Hugging Face Hub, owner/name or owner/name@revision, so that it runs offline too."""
    from gigasr.models.hub import HubName
    from gigasr.models.hub import download_model as download

    on_hub = HubName.parse(name)
    if on_hub is None:
        raise ValueError(f"name: expected owner/name or owner/name@revision, got '{name}'; check the spelling")
    click.echo(download(on_hub))


@models.command()
@click.argument("model")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace a target that exists.")
@report_errors
def convert(model: str, target: Path, overwrite: bool) -> None:
    """Save gigasr's weights as .safetensors, as .pth with params_ema, or as a folder for the Hub."""
    from gigasr.models.zoo import convert_weights as save

    check_absent(target, overwrite)
    save(locate(model), target)
    click.echo(target)


def locate(name: str) -> Path:
    """Find the file of an upsampler or of a bundled base model."""
    import gigasr.models.zoo
    import gigasr_base.zoo

    return (
        gigasr_base.zoo.find_base_model(name)
        if name in gigasr_base.zoo.bundled_base_models()
        else gigasr.models.zoo.find_model(name)
    )
