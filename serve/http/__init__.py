"""What HTTP adds: the gate, bodies and answers as JSON or tensors, the shape of errors."""
