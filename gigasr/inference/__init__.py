"""Run networks in pieces that fit the memory, on one device or several."""
