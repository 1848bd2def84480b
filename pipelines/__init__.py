"""The Kubeflow pipeline and what surrounds it."""
