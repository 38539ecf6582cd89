"""The workloads; each module measures one of them."""
