//! The founding rule, as a decision over answers.

use super::*;

fn identity(id: u32) -> Identity {
    Identity {
        format_version: FORMAT_VERSION,
        node_id: id,
        incarnation: format!("i{id}"),
        cluster_id: None,
        founders: Vec::new(),
        initiator: false,
    }
}

fn join() -> Vec<String> {
    vec!["a:1".into(), "b:1".into(), "c:1".into()]
}

fn answer(id: u32) -> HelloResponse {
    HelloResponse {
        node_id: id,
        incarnation: format!("i{id}"),
        initial_addresses: join(),
        ..HelloResponse::default()
    }
}

fn all() -> BTreeMap<String, HelloResponse> {
    join()
        .into_iter()
        .zip([answer(1), answer(2), answer(3)])
        .collect()
}

#[test]
fn the_lowest_id_founds_when_all_answer() {
    let verdict = decide(&identity(1), &join(), &all()).expect("decided");
    let Verdict::Found { founders } = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        founders.iter().map(|f| f.node_id).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let waits = decide(&identity(2), &join(), &all()).expect("decided");
    assert_eq!(waits, Verdict::Wait { missing: vec![] });
}

#[test]
fn nobody_founds_while_one_is_missing() {
    let mut answers = all();
    answers.remove("c:1");
    let verdict = decide(&identity(1), &join(), &answers).expect("decided");
    assert_eq!(
        verdict,
        Verdict::Wait {
            missing: vec!["c:1".into()]
        }
    );
}

#[test]
fn a_cluster_that_knows_this_incarnation_is_adopted_even_while_one_is_missing() {
    let mut answers = all();
    answers.remove("c:1");
    let first = answers.get_mut("a:1").expect("present");
    first.cluster_id = "x".into();
    first.member = true;
    let verdict = decide(&identity(2), &join(), &answers).expect("decided");
    assert_eq!(
        verdict,
        Verdict::Adopt {
            cluster_id: "x".into()
        }
    );
}

#[test]
fn a_wiped_founder_never_founds_again() {
    let mut answers = all();
    for (address, a) in &mut answers {
        if address != "a:1" {
            a.cluster_id = "x".into();
            a.refusal = "broker 1 is known with another data directory".into();
        }
    }
    let refused = decide(&identity(1), &join(), &answers).expect_err("refused");
    assert!(refused.to_string().contains("another data directory"));
}

#[test]
fn lists_ids_and_own_address_are_checked() {
    let mut answers = all();
    answers
        .get_mut("b:1")
        .expect("present")
        .initial_addresses
        .pop();
    assert!(matches!(
        decide(&identity(1), &join(), &answers),
        Err(JoinError::OtherList { .. })
    ));
    let mut answers = all();
    answers.get_mut("b:1").expect("present").node_id = 1;
    assert!(matches!(
        decide(&identity(1), &join(), &answers),
        Err(JoinError::SameId { .. })
    ));
    let stranger = Identity {
        incarnation: "other".into(),
        node_id: 9,
        ..identity(9)
    };
    assert!(matches!(
        decide(&stranger, &join(), &all()),
        Err(JoinError::NotListed(_))
    ));
}

fn member(id: u32) -> HelloResponse {
    HelloResponse {
        cluster_id: "x".into(),
        established: true,
        ..answer(id)
    }
}

#[test]
fn a_stranger_asks_an_existing_cluster_to_be_let_in_whatever_the_lists_say() {
    let mut answers = all();
    answers.insert("a:1".into(), member(1));
    answers.insert("b:1".into(), member(2));
    // Another newcomer, that was given another list.
    answers.get_mut("c:1").expect("present").initial_addresses = vec!["a:1".into()];
    let verdict = decide(&identity(9), &join(), &answers).expect("decided");
    let members = vec!["a:1".into(), "b:1".into()];
    let cluster_id = "x".into();
    assert_eq!(
        verdict,
        Verdict::Join {
            cluster_id,
            members
        }
    );
    // Who is known under another incarnation is refused by those who answer.
    for known in answers.values_mut() {
        known.known_incarnation = "other".into();
    }
    let verdict = decide(&identity(9), &join(), &answers);
    assert!(!matches!(verdict, Ok(Verdict::Join { .. })), "{verdict:?}");
}

#[test]
fn an_older_image_turns_nobody_away_that_a_newer_one_may_let_in() {
    let known = |id: u32, refusal: &str| HelloResponse {
        known_incarnation: "lost".into(),
        refusal: refusal.into(),
        ..member(id)
    };
    let with = |answers: [HelloResponse; 3]| {
        let answers = join().into_iter().zip(answers).collect();
        decide(&identity(9), &join(), &answers)
    };
    let turned_away = with([known(1, "no"), known(2, "no"), known(3, "no")]);
    assert!(matches!(turned_away, Err(JoinError::Refused { .. })));
    let verdict = with([known(1, "no"), member(2), known(3, "")]).expect("decided");
    let (cluster_id, members) = ("x".into(), vec!["b:1".into()]);
    let asks = Verdict::Join {
        cluster_id,
        members,
    };
    assert_eq!(verdict, asks);
    // Whom no leader has confirmed says nothing.
    let verdict = with([known(1, ""), known(2, ""), known(3, "")]).expect("decided");
    assert_eq!(verdict, Verdict::Unconfirmed);
}

#[test]
fn a_founding_is_abandoned_only_when_nobody_can_finish_it() {
    let pristine = |id: u32, cluster: &str| HelloResponse {
        pristine: true,
        cluster_id: cluster.to_owned(),
        ..answer(id)
    };
    let begun = || -> BTreeMap<String, HelloResponse> {
        let answers = [pristine(1, ""), pristine(2, "x"), pristine(3, "x")];
        join().into_iter().zip(answers).collect()
    };
    assert!(is_abandoned(&join(), &begun()));
    let change = |address: &str, change: fn(&mut HelloResponse)| {
        let mut answers = begun();
        change(answers.get_mut(address).expect("present"));
        is_abandoned(&join(), &answers)
    };
    assert!(!change("a:1", |first| first.initiator = true));
    assert!(!change("c:1", |voted| voted.pristine = false));
    let mut missing = begun();
    missing.remove("a:1");
    assert!(!is_abandoned(&join(), &missing));
    let mut fresh = begun();
    for answer in fresh.values_mut() {
        answer.cluster_id.clear();
    }
    assert!(!is_abandoned(&join(), &fresh), "nothing was begun");
}
