//! The traps of real account tables, on rows made up for these tests.

use highwater_order_demo::account::{Account, AccountsError, read_accounts};
use highwater_order_demo::catalogue::Sku;
use highwater_order_demo::generate::generate_accounts;
use highwater_order_demo::money::{Cents, MoneyError};
use proptest::prelude::*;

const HEADER: &str = "customerID,gender,PhoneService,MultipleLines,InternetService,OnlineSecurity,\
    OnlineBackup,DeviceProtection,TechSupport,StreamingTV,StreamingMovies,Contract,PaymentMethod,\
    MonthlyCharges,TotalCharges,Churn";

fn read(rows: &str) -> Result<Vec<Account>, AccountsError> {
    read_accounts(format!("{HEADER}\n{rows}").as_bytes())
}

fn one(row: &str) -> Account {
    let mut accounts = read(row).unwrap_or_else(|error| panic!("{row}: {error}"));
    assert_eq!(accounts.len(), 1);
    accounts.remove(0)
}

#[test]
fn a_full_row_becomes_an_account() {
    let account = one(
        "0000-AAAAA,F,Yes,Yes,Fiber optic,Yes,No,Yes,No,Yes,No,One year,Mailed check,91.4,1000,No",
    );
    assert_eq!(account.id, "0000-AAAAA");
    assert_eq!(account.contract, "One year");
    assert_eq!(account.payment_method, "Mailed check");
    assert_eq!(account.monthly_charges, Cents(9_140));
    assert_eq!(account.total_charges, Some(Cents(100_000)));
    let expected = [
        Sku::PhoneLine,
        Sku::ExtraLines,
        Sku::InternetFibre,
        Sku::OnlineSecurity,
        Sku::DeviceProtection,
        Sku::StreamingTv,
    ];
    assert_eq!(account.services, expected);
}

#[test]
fn a_blank_total_is_no_total_and_not_zero() {
    let row = |total: &str| {
        format!("1,F,Yes,No,DSL,No,No,No,No,No,No,Two year,Mailed check,45.05,{total},No")
    };
    assert_eq!(one(&row(" ")).total_charges, None);
    assert_eq!(one(&row("")).total_charges, None);
    assert_eq!(one(&row("0")).total_charges, Some(Cents(0)));
    assert!(matches!(
        read(&row("n/a")),
        Err(AccountsError::Amount { line: 2, .. })
    ));
}

#[test]
fn no_service_is_no_like_a_plain_no() {
    let none = "No internet service";
    let rows = format!(
        "1,F,Yes,No,No,{none},{none},{none},{none},{none},{none},Two year,Mailed check,20,20,No\n\
         2,M,No,No phone service,DSL,No,No,No,No,No,No,Two year,Mailed check,25.0,25.0,No"
    );
    let accounts = read(&rows).expect("readable");
    let services: Vec<_> = accounts
        .iter()
        .map(|account| account.services.clone())
        .collect();
    assert_eq!(services, [vec![Sku::PhoneLine], vec![Sku::InternetDsl]]);
    assert_eq!(accounts[0].monthly_charges, Cents(2_000));
    assert_eq!(accounts[1].monthly_charges, Cents(2_500));
}

#[test]
fn contradictions_and_unknown_answers_name_line_and_column() {
    let none = "No internet service";
    for (row, expected) in [
        (
            format!("1,F,Yes,No,DSL,{none},No,No,No,No,No,c,p,1,1,No"),
            "line 2: OnlineSecurity is \"No internet service\", which contradicts InternetService",
        ),
        (
            "1,F,Yes,No,No,Yes,No,No,No,No,No,c,p,1,1,No".to_owned(),
            "line 2: OnlineSecurity is \"Yes\", which contradicts InternetService",
        ),
        (
            "1,F,No,Yes,DSL,No,No,No,No,No,No,c,p,1,1,No".to_owned(),
            "line 2: MultipleLines is \"Yes\", which contradicts PhoneService",
        ),
        (
            "1,F,Maybe,No,DSL,No,No,No,No,No,No,c,p,1,1,No".to_owned(),
            "line 2, column PhoneService: \"Maybe\" is none of Yes, No",
        ),
        (
            "1,F,Yes,No,DSL,No,No,No,No,No,No,c,p,,1,No".to_owned(),
            "line 2, column MonthlyCharges: the amount is blank",
        ),
    ] {
        assert_eq!(read(&row).expect_err(&row).to_string(), expected);
    }
    assert!(matches!(read(""), Err(AccountsError::Empty)));
    assert!(matches!(read("1,F,Yes"), Err(AccountsError::Table(_))));
    let error = read_accounts("customerID\nx\n".as_bytes()).expect_err("no columns");
    assert_eq!(
        error.to_string(),
        "the header has no column \"PhoneService\""
    );
}

#[test]
fn marks_spaces_and_line_ends_of_other_programs_do_no_harm() {
    let text = format!(
        "\u{feff}{HEADER}\r\n 1 ,F, Yes ,No,DSL,No,No,No,No,No,No,c,\"p, q\", 45.30 , ,No\r\n"
    );
    let accounts = read_accounts(text.as_bytes()).expect("readable");
    assert_eq!(accounts[0].id, "1");
    assert_eq!(accounts[0].payment_method, "p, q");
    assert_eq!(accounts[0].monthly_charges, Cents(4_530));
}

#[test]
fn amounts_are_exact_or_refused() {
    for (text, cents) in [
        ("70", 7_000),
        ("42.3", 4_230),
        ("29.85", 2_985),
        ("0.07", 7),
        ("1.10", 110),
        ("70.3500", 7_035),
        (" 8684.8 ", 868_480),
        ("-0.05", -5),
        ("-3", -300),
    ] {
        assert_eq!(Cents::parse(text), Ok(Cents(cents)), "{text}");
    }
    assert_eq!(Cents::parse(" "), Err(MoneyError::Blank));
    assert!(matches!(
        Cents::parse("1.005"),
        Err(MoneyError::FractionOfCent(_))
    ));
    assert!(matches!(
        Cents::parse("99999999999999999999"),
        Err(MoneyError::TooLarge(_))
    ));
    for text in [
        ".", "1.", ".5", "1,50", "1e3", "+1", "--1", "1.-5", "NaN", "\u{664}",
    ] {
        assert!(
            matches!(Cents::parse(text), Err(MoneyError::NotDecimal(_))),
            "{text}"
        );
    }
}

#[test]
fn the_generator_repeats_itself_and_keeps_the_shape() {
    let accounts = generate_accounts(7, 2_000);
    assert_eq!(accounts, generate_accounts(7, 2_000));
    assert_ne!(accounts, generate_accounts(8, 2_000));
    for account in &accounts {
        let has = |sku| account.services.contains(&sku);
        let internet = has(Sku::InternetDsl) || has(Sku::InternetFibre);
        assert!(!account.services.is_empty());
        assert!(!(has(Sku::InternetDsl) && has(Sku::InternetFibre)));
        assert!(!has(Sku::ExtraLines) || has(Sku::PhoneLine));
        assert!(
            internet
                || account
                    .services
                    .iter()
                    .all(|sku| { matches!(sku, Sku::PhoneLine | Sku::ExtraLines) })
        );
        assert!(account.monthly_charges > Cents(0));
    }
    assert!(
        accounts
            .iter()
            .any(|account| account.total_charges.is_none())
    );
}

proptest! {
    #[test]
    fn every_amount_survives_being_written_and_read(cents in -10_000_000_i64..10_000_000) {
        prop_assert_eq!(Cents::parse(&Cents(cents).to_string()), Ok(Cents(cents)));
    }

    #[test]
    fn no_text_makes_the_readers_panic(text in "[-0-9. ,\"\nYesNo]{0,40}") {
        let _ = Cents::parse(&text);
        let _ = read(&text);
    }
}
