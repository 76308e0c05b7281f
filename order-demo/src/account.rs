//! Customer accounts, as a table with a header names them: who takes which services, on what
//! terms, at what monthly charge.
//!
//! The table has the traps of real data. A new customer's total is blank. Columns that depend on
//! another say "No internet service" or "No phone service" where a plain "No" would do. Amounts
//! have no, one or two decimals. What contradicts itself is refused, with line and column.

use std::collections::BTreeMap;
use std::io::Read;

use csv::StringRecord;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::catalogue::Sku;
use crate::money::{Cents, MoneyError};

/// One customer account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The customer's id.
    pub id: String,
    /// What the customer takes, in the catalogue's order, each item once.
    pub services: Vec<Sku>,
    /// `Month-to-month`, `One year`, `Two year`.
    pub contract: String,
    /// How the customer pays.
    pub payment_method: String,
    /// What must be billed every month, to the cent.
    pub monthly_charges: Cents,
    /// What has been billed so far; none for a customer who has not been billed yet.
    pub total_charges: Option<Cents>,
}

/// Why a table of accounts could not be read.
#[derive(Debug, Error)]
pub enum AccountsError {
    /// The text is not a table.
    #[error("the accounts are not a readable table: {0}")]
    Table(#[from] csv::Error),
    /// A column is missing.
    #[error("the header has no column {0:?}")]
    NoColumn(&'static str),
    /// A field holds something unknown.
    #[error("line {line}, column {column}: {value:?} is none of {expected}")]
    Answer {
        /// Counted from 1, the header included.
        line: u64,
        /// The column's name.
        column: &'static str,
        /// What the field holds.
        value: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// A field contradicts another.
    #[error("line {line}: {column} is {value:?}, which contradicts {other}")]
    Contradiction {
        /// Counted from 1, the header included.
        line: u64,
        /// The column's name.
        column: &'static str,
        /// What the field holds.
        value: String,
        /// The column that says otherwise.
        other: &'static str,
    },
    /// An amount cannot be read.
    #[error("line {line}, column {column}: {source}")]
    Amount {
        /// Counted from 1, the header included.
        line: u64,
        /// The column's name.
        column: &'static str,
        /// What is wrong with it.
        source: MoneyError,
    },
    /// A table without rows.
    #[error("the table holds no account")]
    Empty,
}

const ADD_ONS: [(&str, Sku); 6] = [
    ("OnlineSecurity", Sku::OnlineSecurity),
    ("OnlineBackup", Sku::OnlineBackup),
    ("DeviceProtection", Sku::DeviceProtection),
    ("TechSupport", Sku::TechSupport),
    ("StreamingTV", Sku::StreamingTv),
    ("StreamingMovies", Sku::StreamingMovies),
];

const COLUMNS: [&str; 8] = [
    "customerID",
    "PhoneService",
    "MultipleLines",
    "InternetService",
    "Contract",
    "PaymentMethod",
    "MonthlyCharges",
    "TotalCharges",
];

/// Reads a table of accounts: comma-separated, with a header; columns may come in any order, and
/// unknown ones are ignored.
///
/// # Errors
/// At the first row that cannot be understood.
pub fn read_accounts(source: impl Read) -> Result<Vec<Account>, AccountsError> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(source);
    let mut columns = BTreeMap::new();
    for (place, name) in reader.headers()?.iter().enumerate() {
        // Spreadsheets put a byte order mark before the first name.
        columns.insert(name.trim_start_matches('\u{feff}').to_owned(), place);
    }
    for column in COLUMNS.into_iter().chain(ADD_ONS.map(|(column, _)| column)) {
        if !columns.contains_key(column) {
            return Err(AccountsError::NoColumn(column));
        }
    }
    let mut accounts = Vec::new();
    for record in reader.into_records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        accounts.push(
            Row {
                columns: &columns,
                record: &record,
                line,
            }
            .account()?,
        );
    }
    if accounts.is_empty() {
        return Err(AccountsError::Empty);
    }
    Ok(accounts)
}

struct Row<'a> {
    columns: &'a BTreeMap<String, usize>,
    record: &'a StringRecord,
    line: u64,
}

impl Row<'_> {
    fn field(&self, column: &str) -> &str {
        let place = self.columns.get(column);
        place
            .and_then(|place| self.record.get(*place))
            .unwrap_or_default()
    }

    fn account(&self) -> Result<Account, AccountsError> {
        let mut services = Vec::new();
        let phone = self.yes_or_no("PhoneService")?;
        if phone {
            services.push(Sku::PhoneLine);
        }
        if self.depends("MultipleLines", "No phone service", phone, "PhoneService")? {
            services.push(Sku::ExtraLines);
        }
        match self.field("InternetService") {
            "DSL" => services.push(Sku::InternetDsl),
            "Fiber optic" => services.push(Sku::InternetFibre),
            "No" => {}
            _ => return Err(self.unknown("InternetService", "DSL, Fiber optic, No")),
        }
        let internet = self.field("InternetService") != "No";
        for (column, sku) in ADD_ONS {
            if self.depends(column, "No internet service", internet, "InternetService")? {
                services.push(sku);
            }
        }
        let amount = |column| {
            move |source| AccountsError::Amount {
                line: self.line,
                column,
                source,
            }
        };
        let total_charges = match Cents::parse(self.field("TotalCharges")) {
            Ok(total) => Some(total),
            Err(MoneyError::Blank) => None,
            Err(error) => return Err(amount("TotalCharges")(error)),
        };
        Ok(Account {
            id: self.field("customerID").to_owned(),
            services,
            contract: self.field("Contract").to_owned(),
            payment_method: self.field("PaymentMethod").to_owned(),
            monthly_charges: Cents::parse(self.field("MonthlyCharges"))
                .map_err(amount("MonthlyCharges"))?,
            total_charges,
        })
    }

    fn yes_or_no(&self, column: &'static str) -> Result<bool, AccountsError> {
        match self.field(column) {
            "Yes" => Ok(true),
            "No" => Ok(false),
            _ => Err(self.unknown(column, "Yes, No")),
        }
    }

    /// A column whose service needs another one: `absent` is its way of saying "not possible".
    fn depends(
        &self,
        column: &'static str,
        absent: &str,
        possible: bool,
        other: &'static str,
    ) -> Result<bool, AccountsError> {
        let value = self.field(column);
        let taken = match value {
            "Yes" => true,
            "No" => false,
            _ if value == absent && !possible => return Ok(false),
            _ if value == absent => return Err(self.contradiction(column, other)),
            _ => return Err(self.unknown(column, "Yes, No, No ... service")),
        };
        if taken && !possible {
            return Err(self.contradiction(column, other));
        }
        Ok(taken)
    }

    fn contradiction(&self, column: &'static str, other: &'static str) -> AccountsError {
        let value = self.field(column).to_owned();
        AccountsError::Contradiction {
            line: self.line,
            column,
            value,
            other,
        }
    }

    fn unknown(&self, column: &'static str, expected: &'static str) -> AccountsError {
        let value = self.field(column).to_owned();
        AccountsError::Answer {
            line: self.line,
            column,
            value,
            expected,
        }
    }
}
