"""What is left of a model, and of the lift of pretraining, on data that are not as those it learned from."""
