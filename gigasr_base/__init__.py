"""gigasr_base: text to 64 px images, from the blocks of gigasr."""
