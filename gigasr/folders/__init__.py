"""Many files: what goes where, a prompt per file, the run over them here or on a cluster, what is done."""
