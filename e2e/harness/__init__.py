"""What the tests stand on: programs to start, browsers to steer, wires to tap."""
