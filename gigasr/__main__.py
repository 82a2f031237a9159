"""python -m gigasr = the command gigasr."""

from gigasr.cli import main

main()
