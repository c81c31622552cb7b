"""See into a running optimizer: its rates, its hyper-parameters, its way to SGD.

`monitor` keeps a summary of the effective rates in an optimizer's state, `read_report`
returns it, and this package turns reports into scalars, histograms and pictures.
"""
