"""ambit and Istio's ambient mesh, one after the other, on the same real two-node cluster of this machine."""
