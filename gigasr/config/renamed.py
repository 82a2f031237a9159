"""Renamed keys of configs: files and weights of earlier versions remain readable."""

from typing import Any

RENAMED_KEYS = {  # version 0.1 -> 0.2
    "accumulation": "gradient_accumulation_steps",
    "camera": "mild",
    "checkpointing": "gradient_checkpointing",
    "clip_norm": "max_grad_norm",
    "decay": "learning_rate_decay",
    "discriminator_lr": "discriminator_learning_rate",
    "empty_caption": "caption_dropout",
    "exit_weight": "head_weight",
    "generator_lr": "generator_learning_rate",
    "keep_texts": "cache_text_features",
    "lr_mul": "learning_rate_multiplier",
    "mapping_lr_mul": "mapping_learning_rate_multiplier",
    "max_reduction": "max_downscale",
    "mirror": "horizontal_flip",
    "second_order": "real_esrgan",
    "sees_lr": "condition_on_lr",
    "sharded": "fsdp",
    "whole": "full_image",
    "workers": "num_workers",
}
FREE_KEYS = "min_scores"  # name of the table whose keys users choose


def rename_keys(table: Any) -> Any:
    """Replace earlier keys by present keys, at every depth; keep all values.

    Raises ValueError for a table with both spellings of a key.
    """
    if isinstance(table, list):
        return [rename_keys(element) for element in table]
    if not isinstance(table, dict):
        return table
    renamed: dict[Any, Any] = {}
    for key, value in table.items():
        present = RENAMED_KEYS.get(key, key)
        if present in renamed:
            raise ValueError(f"{present}: expected one spelling of the key, got {key} too; remove the earlier one")
        renamed[present] = value if key == FREE_KEYS else rename_keys(value)
    return renamed
