"""What runs the components: DVC on one machine, Kubeflow Pipelines on a cluster."""
