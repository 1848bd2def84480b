"""What a model looks at: methods that say which parts of an input made its answer, and how far they can be believed."""
