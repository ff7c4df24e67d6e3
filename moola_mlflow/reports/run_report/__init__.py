"""The report of a pre-training and the fine-tunings of its encoder, made from what their runs hold and nothing else."""
