"""Nodes whose proxy is a stock ztunnel, in a laptop cluster under ambit's control plane.

ztunnel gets workloads, policies and certificates from port 15012 like our own agent. What Istio's CNI agent does
beside it, `bench.ztunnel.agent` does here: it is told of pods by the pod runner, redirects them, and hands ztunnel
their network namespaces. No part of ztunnel is here: `$AMBIT_BENCH_ZTUNNEL` names the program.
"""
