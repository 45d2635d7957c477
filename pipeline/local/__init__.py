"""Cosmos-Predict2.5 on this machine.

`load` gets a `model` from disk. `encode`, `denoise` and `decode` are its steps, each to be called alone; `generate`
does them in order. `placement` says what is on the device when, `guardrail` checks what goes in and out.
"""
