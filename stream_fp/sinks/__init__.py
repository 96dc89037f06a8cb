"""Where predictions go beside the output topic: sidecar files and the minidash page."""
