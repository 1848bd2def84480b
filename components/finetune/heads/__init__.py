"""What `finetune` learns with labels: one file a head, with its parameters."""
