//! A provider has each effect once, over restarts and torn lines, unless it is broken on purpose.

use super::*;

fn journal(path: &Path) -> Vec<Effect> {
    let text = std::fs::read_to_string(path).expect("readable");
    parse(&text).expect("whole").0
}

fn done(path: &Path) -> usize {
    journal(path)
        .iter()
        .filter(|effect| !effect.suppressed)
        .count()
}

#[test]
fn a_known_key_has_no_effect_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("payment");
    for round in 0..2 {
        let mut provider = Provider::open(&path, false).expect("opened");
        provider.effect(EffectKind::Capture, "o-1", Cents(70));
        provider.sync().expect("synced");
        assert_eq!((journal(&path).len(), done(&path)), (round + 1, 1));
    }
    assert!(journal(&path)[1].suppressed);
}

#[test]
fn a_torn_line_is_cut_and_damage_before_it_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("payment");
    let mut provider = Provider::open(&path, false).expect("opened");
    for order in ["o-1", "o-2"] {
        provider.effect(EffectKind::Activate, order, Cents(0));
    }
    provider.sync().expect("synced");
    let whole = std::fs::read_to_string(&path).expect("readable");
    std::fs::write(&path, &whole[..whole.len() - 5]).expect("written");
    let mut provider = Provider::open(&path, false).expect("opened");
    provider.effect(EffectKind::Activate, "o-2", Cents(0));
    provider.sync().expect("synced");
    assert_eq!(std::fs::read_to_string(&path).expect("readable"), whole);

    std::fs::write(&path, whole.replacen("done", "dome", 1)).expect("written");
    assert!(Provider::open(&path, false).is_err());
}

#[test]
fn a_provider_that_forgets_has_an_effect_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("payment");
    let mut provider = Provider::open(&path, true).expect("opened");
    for _ in 0..2 {
        provider.effect(EffectKind::Void, "o-1", Cents(70));
    }
    provider.sync().expect("synced");
    assert_eq!(done(&path), 2);
}
