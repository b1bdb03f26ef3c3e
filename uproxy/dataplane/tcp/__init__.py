"""TCP: from the accepted client to the last byte of its flow."""
