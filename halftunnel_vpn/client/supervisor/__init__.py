"""The supervisor: one tunnel at a time, its state machine, and the policy for traffic outside the tunnel.

The daemon and `htvpn up --foreground` use the same supervisor. It knows neither systemd nor the process.
"""
