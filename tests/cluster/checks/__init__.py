"""The cluster's own test: real faults on the real cluster.

Guarantees: every check uses the command line as a user would. Without an argument all checks
run and the cluster is taken down and made again; `--keep` leaves those out that would take
it down, so that it can be run beside other users of it; words choose checks by name.
Ends with a line `N passed, N failed`.
"""
