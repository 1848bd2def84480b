"""Text at size: corpora as shards, tokenizers, token files on the disk, and the batches that models are trained on."""
