"""Checkpoints: what a rank owns of the training state, files of it by parameter name and range, whole or not at all."""
