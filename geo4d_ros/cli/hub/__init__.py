"""`geo4d push` and `geo4d pull`: checkpoints on a model hub."""
