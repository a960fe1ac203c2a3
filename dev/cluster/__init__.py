"""A Kubernetes cluster with Argo's controller on one machine, for the workflow tests."""
