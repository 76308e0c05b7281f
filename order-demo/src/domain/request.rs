//! What a channel orders: the body of a `POST /orders`, and what the intake topics hold.

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::catalogue::Sku;
use crate::money::Cents;

/// Where an order came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Channel {
    /// A customer's browser.
    Web,
    /// A person in a shop or at a telephone.
    Agent,
}

/// One item of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderItem {
    /// What.
    pub sku: Sku,
    /// How many.
    pub quantity: u32,
}

/// An order as a channel places it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderRequest {
    /// Where it came in.
    pub channel: Channel,
    /// Whose order.
    pub account_id: String,
    /// The terms.
    pub contract: String,
    /// How it is paid.
    pub payment_method: String,
    /// A means of payment, as the payment provider names it.
    pub payment_token: String,
    /// What the provider of credit data says of the account: `A` to `E`.
    pub credit_class: String,
    /// Where the services are to work.
    pub site: String,
    /// The list of prices that applies.
    pub price_book: String,
    /// What the account is charged every month.
    pub monthly_charges: Cents,
    /// What is ordered.
    pub items: Vec<OrderItem>,
}

/// The token of a customer whose bank refuses.
pub const TOKEN_DECLINED: &str = "tok-declined";
/// The token of a customer whose bank authorises and then refuses to pay.
pub const TOKEN_CAPTURE_DECLINED: &str = "tok-capture-declined";
/// A site without a line.
pub const SITE_NO_LINE: &str = "site-no-line";
/// The worst credit class: no contract.
pub const CREDIT_REFUSED: &str = "E";
/// A list of prices that cannot be read until somebody repairs it: the poison of this workload.
pub const BOOK_BROKEN: &str = "book-broken";
/// More than any bucket ever holds.
pub const TOO_MANY: u32 = 1_000_000;

impl OrderRequest {
    /// The plain order of an account.
    #[must_use]
    pub fn of(account: &Account, channel: Channel) -> Self {
        let item = |sku: &Sku| OrderItem {
            sku: *sku,
            quantity: 1,
        };
        Self {
            channel,
            account_id: account.id.clone(),
            contract: account.contract.clone(),
            payment_method: account.payment_method.clone(),
            payment_token: "tok-good".to_owned(),
            credit_class: "B".to_owned(),
            site: "site-connected".to_owned(),
            price_book: "book-2025".to_owned(),
            monthly_charges: account.monthly_charges,
            items: account.services.iter().map(item).collect(),
        }
    }
}
