"""How well web pages are recognised through the tunnel: `scripts/audit`. See docs/TRAFFIC-ANALYSIS.md."""
