"""The supervisor: one tunnel at a time, the state machine around it, and what may leave outside it meanwhile.

The daemon and `htvpn up --foreground` run the same one. It knows neither systemd nor the process.
"""
