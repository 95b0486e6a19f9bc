"""What is trained, and with which loss: one file a method, and none inherits from another."""
