//! Content becomes durable as documented.

use super::*;
