"""The gateway that all connectors share: registry, supervision, ingress, routing, egress, the one web server."""
