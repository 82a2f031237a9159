"""Entry point of `python -m gigasr`, the same as the command gigasr."""

from gigasr.cli import main

main()
