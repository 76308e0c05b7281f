//! What counts as a strike, and how runs are summed.

use super::{Effect, Fault, Strike, Strikes, Tally};
use crate::settings::Kind;

#[test]
fn a_fault_that_broke_nothing_has_not_struck() {
    let mut strikes = Strikes::default();
    strikes.note((Fault(0), Kind::Kill), Effect::None);
    strikes.note((Fault(1), Kind::Kill), Effect::Struck(Strike::Down));
    // It went down, but nobody tried to hear the other half.
    strikes.note((Fault(2), Kind::Kingmaker), Effect::Struck(Strike::Down));
    assert_eq!(
        strikes.tally().to_string(),
        "struck: Kill 1/2, Kingmaker 0/1"
    );
    strikes.struck(Fault(2), Strike::Messages);
    assert_eq!(
        strikes.tally().to_string(),
        "struck: Kill 1/2, Kingmaker 1/1"
    );
}

#[test]
fn runs_are_summed_by_what_they_said() {
    let mut sum = Tally::default();
    for said in ["struck: Kill 1/2, Rot 0/1", "struck: Kill 2/2", "struck: "] {
        assert_eq!(sum.add_said(said), Some(()));
    }
    assert_eq!(sum.to_string(), "struck: Kill 3/4, Rot 0/1");
    let never = sum.never();
    assert!(never.contains(&"Rot".to_owned()) && never.contains(&"Cut".to_owned()));
    assert!(!never.contains(&"Kill".to_owned()));
    assert_eq!(sum.add_said("PASS: 12 operations"), None);
}
