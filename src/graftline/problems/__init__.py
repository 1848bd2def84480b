"""What `finetune` learns with labels: one folder a problem. docs/add-a-problem.md says what is in it."""
