"""An ARM machine without one: the real aarch64 onnxruntime, run on this machine by qemu's user-mode emulator."""
