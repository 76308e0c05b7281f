//! Names become durable as documented.

use super::*;
