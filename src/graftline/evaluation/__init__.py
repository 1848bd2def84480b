"""How good models are: the lift of pretraining, the budget curve, and the statistics of both."""
