"""The cluster: real Kubernetes, real nodes, one machine. One concept a file; start at cluster.py."""
