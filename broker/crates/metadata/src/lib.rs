//! The cluster image and the commands that change it.
