//! Tests on real mounts. They need root and /dev/fuse, and say so where these are missing.

#[path = "mounted/calls.rs"]
mod calls;
#[path = "mounted/faults.rs"]
mod faults;
#[path = "mounted/life.rs"]
mod life;
#[path = "mounted/loss.rs"]
mod loss;
#[path = "mounted/rig.rs"]
mod rig;
#[path = "mounted/simulated.rs"]
mod simulated;
