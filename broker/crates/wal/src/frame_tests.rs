//! Frames survive a round trip; a flipped bit anywhere is noticed.
