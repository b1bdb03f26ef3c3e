"""The control process: what the cluster wants is compared with what is open, and made so."""
