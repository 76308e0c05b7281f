//! Mounts begin and end cleanly.
