"""A task's parameters: one model a component, read, checked and assigned; nothing here imports torch."""
