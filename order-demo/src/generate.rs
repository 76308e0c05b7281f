//! Accounts out of a seed, for those who have no table of real ones. The shape is the same:
//! add-ons only with internet, extra lines only with a telephone, charges around the list prices.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::account::Account;
use crate::catalogue::Sku;
use crate::money::Cents;

const ADD_ONS: [Sku; 6] = [
    Sku::OnlineSecurity,
    Sku::OnlineBackup,
    Sku::DeviceProtection,
    Sku::TechSupport,
    Sku::StreamingTv,
    Sku::StreamingMovies,
];
const CONTRACTS: [&str; 3] = ["Month-to-month", "One year", "Two year"];
const PAYMENT_METHODS: [&str; 4] = [
    "Electronic check",
    "Mailed check",
    "Bank transfer (automatic)",
    "Credit card (automatic)",
];

/// `count` accounts; the same seed gives the same accounts.
#[must_use]
pub fn generate_accounts(seed: u64, count: usize) -> Vec<Account> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|place| account(&mut random, place))
        .collect()
}

fn account(random: &mut StdRng, place: usize) -> Account {
    let mut services = Vec::new();
    let internet = match random.random_range(0..100) {
        0..22 => None,
        22..56 => Some(Sku::InternetDsl),
        _ => Some(Sku::InternetFibre),
    };
    // Nobody is a customer without any service.
    if internet != Some(Sku::InternetDsl) || random.random_bool(0.72) {
        services.push(Sku::PhoneLine);
        if random.random_bool(0.47) {
            services.push(Sku::ExtraLines);
        }
    }
    if let Some(internet) = internet {
        services.push(internet);
        services.extend(ADD_ONS.into_iter().filter(|_| random.random_bool(0.43)));
    }
    let list: Cents = services.iter().map(|sku| sku.list_price()).sum();
    let monthly_charges = list + Cents(random.random_range(-30..=30) * 5);
    let tenure = random.random_range(0..=72);
    let pick = |names: &[&str], at: usize| names.get(at).copied().unwrap_or_default().to_owned();
    Account {
        id: format!("{:04}-{}", place % 10_000, letters(random)),
        services,
        contract: pick(&CONTRACTS, random.random_range(0..CONTRACTS.len())),
        payment_method: pick(
            &PAYMENT_METHODS,
            random.random_range(0..PAYMENT_METHODS.len()),
        ),
        monthly_charges,
        total_charges: (tenure > 0).then(|| Cents(monthly_charges.0 * tenure)),
    }
}

fn letters(random: &mut StdRng) -> String {
    (0..5)
        .map(|_| char::from(random.random_range(b'A'..=b'Z')))
        .collect()
}
