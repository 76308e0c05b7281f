//! A power loss takes what was not synced, and nothing else.
