"""The networks of the paper and what they are built of."""
