//! Known-bad variants of the broker. A harness that never fails proves nothing: each of these
//! breaks one rule at the very place where the rule lives, and the harness must notice.
//!
//! Without the feature `mutant` the macro leaves what is right, and this crate is empty. With it,
//! which builds under the cargo profile `mutant` alone, one mutant can be chosen when the process
//! starts, by name, in the variable `HIGHWATER_MUTANT`.

#[cfg(feature = "mutant")]
mod chosen;

#[cfg(feature = "mutant")]
pub use chosen::{Mutant, UnknownMutant, VARIABLE, fails, is_chosen, start};

/// What a mutant does instead of what is right.
///
/// `mutant!(Name => broken; else right)` is an expression: `broken` when that mutant is chosen,
/// else `right`. `mutant!(Name => { ... })` is a statement: done only when that mutant is chosen.
/// Without the feature only `right` is left, and nothing of the statement.
#[cfg(not(feature = "mutant"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident => $broken:expr; else $right:expr) => {
        $right
    };
    ($name:ident => $broken:block) => {};
}

/// What a mutant does instead of what is right.
///
/// `mutant!(Name => broken; else right)` is an expression: `broken` when that mutant is chosen,
/// else `right`. `mutant!(Name => { ... })` is a statement: done only when that mutant is chosen.
#[cfg(feature = "mutant")]
#[macro_export]
macro_rules! mutant {
    ($name:ident => $broken:expr; else $right:expr) => {
        if $crate::is_chosen($crate::Mutant::$name) {
            $broken
        } else {
            $right
        }
    };
    ($name:ident => $broken:block) => {
        if $crate::is_chosen($crate::Mutant::$name) $broken
    };
}
