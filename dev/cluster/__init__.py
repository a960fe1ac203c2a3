"""A Kubernetes with Argo's controller on this machine, for the tests of the workflows."""
