"""Client metrics pushed to the brokers (KIP-714): what to send and when, without input and output."""
