"""What people do with a Core ML package beside running it in an app: call, inspect, compare and judge it, anywhere."""
