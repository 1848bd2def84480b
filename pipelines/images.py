"""The container images that the pipeline runs: the one place that names them."""

DATA_IMAGE = "graftline/data:0.1.0"
"""For validate and publish: without torch."""

TRAIN_IMAGE = "graftline/train:0.1.0"
"""For pretrain, finetune and evaluate."""
